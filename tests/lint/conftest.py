import pytest


@pytest.fixture
def written(tmp_path):
    """Writes files given by path and text, and returns the folder that they are in."""

    def write(files):
        for path, text in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(text)
        return tmp_path

    return write
