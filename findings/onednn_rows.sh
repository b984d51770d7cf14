#!/usr/bin/env bash
# oneDNN 2.6.3 (libdnnl2 2.6.3-1 of Debian 12): a row of a float32 matmul [rows, 2048] x [2048, 128], computed
# with SSE4.1, AVX or AVX2 code, has other bits when it is multiplied alone than when it is one of several
# rows. With AVX-512 code it has the same. Nothing says so: neither the documentation of matmul nor an
# attribute. A program that promises results independent of the batch must not use it on such CPUs.
#
# Seen: "rows: rows that differ from the same row alone"
#   AVX2         2:2 3:3 6:6 7:7 8:8 64:64
#   AVX512_CORE  2:0 3:0 6:0 7:0 8:0 64:0      (on a CPU that has it)
set -euo pipefail

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
apt-get download -q libdnnl2=2.6.3-1 libdnnl-dev=2.6.3-1 >/dev/null
for package in *.deb; do dpkg-deb -x "$package" root; done
libraries=$(echo root/usr/lib/*-linux-gnu)

cat >rows.cc <<'CODE'
#include <cstdio>
#include <cstring>
#include <oneapi/dnnl/dnnl.hpp>
#include <random>
#include <vector>

constexpr long kInner = 2048, kColumns = 128, kMost = 64;

int main() {
  using namespace dnnl;
  const engine cpu(engine::kind::cpu, 0);
  stream run(cpu);
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(kMost * kInner), weights(kInner * kColumns);
  for (float& value : x) value = normal(random);
  for (float& value : weights) value = normal(random);
  const auto multiply = [&](long first, long rows) {
    std::vector<float> y(rows * kColumns);
    const auto plain = [](long a, long b) {
      return memory::desc({a, b}, memory::data_type::f32, memory::format_tag::ab);
    };
    const auto xd = plain(rows, kInner), wd = plain(kInner, kColumns), yd = plain(rows, kColumns);
    memory xm(xd, cpu, x.data() + first * kInner), wm(wd, cpu, weights.data()), ym(yd, cpu, y.data());
    const matmul::primitive_desc description(matmul::desc(xd, wd, yd), cpu);
    matmul(description).execute(
        run, {{DNNL_ARG_SRC, xm}, {DNNL_ARG_WEIGHTS, wm}, {DNNL_ARG_DST, ym}});
    run.wait();
    return y;
  };
  const char* gap = "";
  for (const long rows : {2, 3, 6, 7, 8, 64}) {
    const std::vector<float> together = multiply(0, rows);
    int differ = 0;
    for (long row = 0; row < rows; ++row) {
      differ += std::memcmp(multiply(row, 1).data(), &together[row * kColumns],
                            kColumns * sizeof(float)) != 0;
    }
    std::printf("%s%ld:%d", gap, rows, differ);
    gap = " ";
  }
  std::printf("\n");
}
CODE
g++ -O1 -std=c++17 -Iroot/usr/include rows.cc -L"$libraries" -ldnnl -Wl,-rpath-link,"$libraries" -o rows

see() { # instruction set, what is expected
  local seen
  seen=$(OMP_NUM_THREADS=1 ONEDNN_MAX_CPU_ISA=$1 LD_LIBRARY_PATH=$libraries ./rows)
  printf '%-12s %s\n' "$1" "$seen"
  [[ $seen == "$2" ]] || { echo "expected     $2" >&2; exit 1; }
}
see AVX2 '2:2 3:3 6:6 7:7 8:8 64:64'
if grep -qw avx512bw /proc/cpuinfo; then
  see AVX512_CORE '2:0 3:0 6:0 7:0 8:0 64:0'
fi
echo "still so in oneDNN 2.6.3"
