#!/usr/bin/env bash
# protobuf 3.21.12 (libprotobuf-dev 3.21.12-3+deb12u1 of Debian 12): with -fsanitize=thread its headers give the
# base class of map fields two members more (google/protobuf/map_field.h), and so every message with a map
# another layout than the packaged libprotobuf, which was built without, believes it to have. Programs link
# without a word; what the library itself does with a map, as in reflection, then looks in the wrong place.
# Such a program needs a protobuf built with -fsanitize=thread too, or headers that do not see it.
#
# Seen: "base of map fields: 72 bytes, under ThreadSanitizer 80"
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q libprotobuf-dev=3.21.12-3+deb12u1 >/dev/null 2>&1
dpkg-deb -x libprotobuf-dev_*.deb root

cat >layout.cc <<'CODE'
#include <cstdio>
#include <google/protobuf/map_field.h>

int main() {
  std::printf("%zu", sizeof(google::protobuf::internal::MapFieldBase));
}
CODE

size() { # flags
  # The header alone decides: nothing of the library is called.
  g++ -std=c++17 -O0 "$@" -isystem root/usr/include layout.cc -o layout -Wl,--unresolved-symbols=ignore-all
  ./layout
}
seen="base of map fields: $(size) bytes, under ThreadSanitizer $(size -fsanitize=thread)"
echo "$seen"
[[ $seen == "base of map fields: 72 bytes, under ThreadSanitizer 80" ]]
echo "still so in protobuf 3.21.12"
