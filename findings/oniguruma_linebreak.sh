#!/usr/bin/env bash
# Oniguruma 6.9.8 (libonig5 6.9.8-1 of Debian 12): a greedy repeat of `.` or of a negated class, followed by
# `\R` (any line break), finds nothing in "ab\n", where `.+\n`, `.+?\R` and `\w+\R` find all of it. The
# Oniguruma inside tokenizers 0.22.2 (PyPI) finds all of it with each of them, so that the same tokenizer.json
# would cut a text otherwise here and there. No pre-tokenizer that we have met uses `\R`.
#
# Seen: pattern, what 6.9.8 finds (-1: nothing), what tokenizers cuts out
#   .+\R -1 ab\n | [^\n]+\R -1 ab\n | .+\n 0-3 ab\n | .+?\R 0-3 ab\n | \w+\R 0-3 ab\n
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q libonig5=6.9.8-1 libonig-dev=6.9.8-1 >/dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
libraries=$(echo root/usr/lib/*-linux-gnu)
python3 -m venv venv
venv/bin/pip install -q --disable-pip-version-check tokenizers==0.22.2

cat >find.c <<'CODE'
#include <oniguruma.h>
#include <stdio.h>
#include <string.h>

int main(int count, char** patterns) {
  OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
  const UChar* const text = (const UChar*)"ab\n";
  onig_initialize(encodings, 1);
  for (int i = 1; i < count; ++i) {
    const UChar* const pattern = (const UChar*)patterns[i];
    OnigRegion* const found = onig_region_new();
    OnigErrorInfo error;
    regex_t* regex;
    if (onig_new(&regex, pattern, pattern + strlen(patterns[i]), ONIG_OPTION_NONE,
                 ONIG_ENCODING_UTF8, ONIG_SYNTAX_ONIGURUMA, &error) != ONIG_NORMAL) {
      return 1;
    }
    const int at = onig_search(regex, text, text + 3, text, text + 3, found, ONIG_OPTION_NONE);
    printf(at < 0 ? "-1\n" : "%d-%d\n", at, at < 0 ? 0 : found->end[0]);
  }
  return 0;
}
CODE
cc -Iroot/usr/include find.c -o find "$libraries"/libonig.so.5

cat >cut.py <<'CODE'
import sys
from tokenizers import Regex, pre_tokenizers

for pattern in sys.argv[1:]:
    pieces = pre_tokenizers.Split(Regex(pattern), "isolated").pre_tokenize_str("ab\n")
    print(pieces[0][0].replace("\n", "\\n") if len(pieces) == 1 else "-1")
CODE

patterns=('.+\R' '[^\n]+\R' '.+\n' '.+?\R' '\w+\R')
LD_LIBRARY_PATH=$libraries ./find "${patterns[@]}" >library.txt
venv/bin/python cut.py "${patterns[@]}" >tokenizers.txt
seen=$(printf '%s\n' "${patterns[@]}" | paste -d ' ' - library.txt tokenizers.txt)
echo "$seen"
diff <(echo "$seen") - <<'EXPECTED'
.+\R -1 ab\n
[^\n]+\R -1 ab\n
.+\n 0-3 ab\n
.+?\R 0-3 ab\n
\w+\R 0-3 ab\n
EXPECTED
