import pytest
import wording


def found(tree):
    return [f"{p.path}:{p.line} {p.text.split(':')[0]}" for p in wording.problems(tree)]


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("a.h", "int a;  // Of all rows.\n"),
        ("a.proto", "// Of all rows.\n"),
        ("a.cc", "/* Of all rows. */\n"),
        ("a.py", "# Of all rows.\n"),
        ("a.py", '"""Of all rows."""\n'),
        ("a.sh", "x=1  # Of all rows.\n"),
        ("b/CMakeLists.txt", "# Of all rows.\n"),
    ],
)
def test_comments_that_begin_with_of(written, path, code):
    assert found(written({path: code})) == [f'{path}:1 the comment begins "Of"']


def test_sentences_within_a_comment_may_begin_with_of(written):
    code = "// Rows are sorted.\n// Of equal rows the first wins.\nint a;\n"
    assert found(written({"a.h": code, "a.py": code.replace("//", "#").replace("int a;", "")})) == []


def test_another_comment_begins_after_code(written):
    code = "int a;  // Rows.\n// Of all rows.\n"
    assert found(written({"a.h": code})) == ['a.h:2 the comment begins "Of"']


@pytest.mark.parametrize("word", ["anew", "Anew", "nobody", "whoever", "Whoever"])
def test_puzzling_words_in_comments(written, word):
    tree = written({"a.cc": f"int a;\n// Sorts\n// {word} them.\n", "a.py": f'"""Sorts\n{word} them."""\n'})
    assert found(tree) == [f'a.cc:3 "{word}" in a comment', f'a.py:2 "{word}" in a comment']


def test_puzzling_words_in_messages_of_programs(written):
    message = 'Log("sent anew to " /* a */ R"(nobody)");\n'
    tree = written({"common/a.cc": message, "tests/a.cc": message})
    assert found(tree) == ['common/a.cc:1 "anew" in a message', 'common/a.cc:1 "nobody" in a message']
    tree = written({"common/a.cc": "", "client/python/src/a.py": 'raise Error(f"sent anew {x}")\n'})
    assert found(tree) == ['client/python/src/a.py:1 "anew" in a message']


def test_a_docstring_is_a_comment_and_no_message(written):
    tree = written({"client/python/src/a.py": 'def f():\n    """Sent anew."""\n'})
    assert found(tree) == ['client/python/src/a.py:2 "anew" in a comment']


def test_words_that_contain_them_and_names_in_code_pass(written):
    tree = written({"common/a.cc": "// Renewed. A canew.\nint anew = whoever;\n"})
    assert found(tree) == []


def test_what_looks_like_a_comment_in_a_string_is_none(written):
    assert found(written({"tests/a.cc": 'Get("http://Of all");\n'})) == []
