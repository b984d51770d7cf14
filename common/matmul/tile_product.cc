#include "common/matmul/tile_product.h"

#include <algorithm>

#include "common/base/check.h"
#include "common/base/cpu_features.h"
#include "common/matmul/pack_columns.h"

namespace expertmesh::matmul {

size_t PackedTileBytes(size_t columns, size_t inner) {
  return RoundUp(columns, kStripColumns) * RoundUp(inner, kTileInner) * sizeof(uint16_t);
}

void PackTiles(const uint16_t* weights, size_t columns, size_t inner, uint8_t* packed) {
  PackColumns<kStripColumns, 2>(weights, columns, inner, inner, RoundUp(inner, kTileInner),
                                reinterpret_cast<uint16_t*>(packed));
}

}  // namespace expertmesh::matmul

#if defined(__x86_64__)

#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>

#define EXPERTMESH_TILES __attribute__((target("amx-tile,amx-bf16")))

namespace expertmesh::matmul {
namespace {

constexpr size_t kTileRows = 16;
constexpr size_t kTileBytes = 64;  // One row of a tile: 32 bf16, or 16 float32.
constexpr size_t kLine = 64;
// Weights of a strip that one step multiplies.
constexpr size_t kStepBytes = kTileInner * kStripColumns * sizeof(uint16_t);
// From row to row of a step's weights, and of the strip's products.
constexpr size_t kWeightStride = 2 * kStripColumns * sizeof(uint16_t);
constexpr size_t kProductStride = kStripColumns * sizeof(float);
// How far ahead weights are asked for: 4 to 16 KiB measured alike, more measured worse.
constexpr size_t kAhead = 8192;

// What LDTILECFG reads.
struct alignas(64) TileConfig {
  uint8_t palette = 1;
  uint8_t start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {};
};

// The intrinsics do not tell the compiler which memory they touch.
void MemoryFence() { std::atomic_signal_fence(std::memory_order_seq_cst); }

// Tiles 0 to 3 are sums, 4 and 5 rows of x, 6 and 7 weights. Up to 16 rows take one tile of x and
// sums of 64 columns; more take two and sums of 32 columns.
EXPERTMESH_TILES void Configure(size_t rows) {
  TileConfig config;
  std::fill_n(config.row_bytes, 8, uint16_t{kTileBytes});
  const uint8_t first = static_cast<uint8_t>(std::min(rows, kTileRows));
  const uint8_t second = static_cast<uint8_t>(rows > kTileRows ? rows - kTileRows : first);
  const uint8_t of_tile[] = {first, first, second, second, first, second, kTileRows, kTileRows};
  std::copy(std::begin(of_tile), std::end(of_tile), config.rows);
  MemoryFence();
  _tile_loadconfig(&config);
}

// Weights to ask memory for, step by step: `lines` of them, from `at` on.
struct Ahead {
  const uint8_t* at = nullptr;
  size_t lines = 0;  // A multiple of 4.
};

inline __attribute__((always_inline)) void AskFor(Ahead& ahead, size_t lines) {
  for (size_t line = 0; line < lines; ++line, ahead.at += kLine) {
    _mm_prefetch(reinterpret_cast<const char*>(ahead.at), _MM_HINT_T0);
  }
}

// Up to 16 rows of one strip.
EXPERTMESH_TILES void MultiplyFew(const uint8_t* x, size_t x_row_bytes, const uint8_t* weights,
                                  size_t steps, Ahead ahead, float* y) {
  const size_t quarter = ahead.lines / 4;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t step = 0; step < steps; ++step, x += kTileBytes, weights += kStepBytes) {
    _tile_loadd(4, x, x_row_bytes);
    AskFor(ahead, quarter);
    _tile_loadd(6, weights, kWeightStride);
    _tile_dpbf16ps(0, 4, 6);
    AskFor(ahead, quarter);
    _tile_loadd(7, weights + kTileBytes, kWeightStride);
    _tile_dpbf16ps(1, 4, 7);
    AskFor(ahead, quarter);
    _tile_loadd(6, weights + 2 * kTileBytes, kWeightStride);
    _tile_dpbf16ps(2, 4, 6);
    AskFor(ahead, quarter);
    _tile_loadd(7, weights + 3 * kTileBytes, kWeightStride);
    _tile_dpbf16ps(3, 4, 7);
  }
  _tile_stored(0, y, kProductStride);
  _tile_stored(1, y + 16, kProductStride);
  _tile_stored(2, y + 32, kProductStride);
  _tile_stored(3, y + 48, kProductStride);
}

// 17 to 32 rows of half a strip.
EXPERTMESH_TILES void MultiplyMany(const uint8_t* x, size_t x_row_bytes, const uint8_t* weights,
                                   size_t steps, Ahead ahead, float* y) {
  const size_t half = ahead.lines / 2;
  const uint8_t* x2 = x + kTileRows * x_row_bytes;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (size_t step = 0; step < steps; ++step) {
    _tile_loadd(4, x, x_row_bytes);
    AskFor(ahead, half);
    _tile_loadd(6, weights, kWeightStride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(5, x2, x_row_bytes);
    _tile_dpbf16ps(2, 5, 6);
    AskFor(ahead, half);
    _tile_loadd(7, weights + kTileBytes, kWeightStride);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
    x += kTileBytes;
    x2 += kTileBytes;
    weights += kStepBytes;
  }
  float* const y2 = y + kTileRows * kStripColumns;
  _tile_stored(0, y, kProductStride);
  _tile_stored(1, y + 16, kProductStride);
  _tile_stored(2, y2, kProductStride);
  _tile_stored(3, y2 + 16, kProductStride);
}

// What pass `pass` of `passes` over strip `strip` of `strips` asks for. One pass: what it will use
// itself, and then the next strip's. Several: they share the next strip, so that memory is read
// all the time; who comes first has to look after itself.
Ahead AheadOf(const uint8_t* weights, size_t steps, size_t strip, size_t strips, size_t pass,
              size_t passes) {
  constexpr size_t kLines = kStepBytes / kLine;
  if (passes == 1 || (strip == 0 && pass == 0)) {
    return {weights + kAhead, kLines};
  }
  if (strip + 1 == strips) {
    return {};
  }
  const size_t first = strip == 0 ? 1 : 0;
  const size_t lines = (kLines / 4 + passes - first - 1) / (passes - first) * 4;
  const size_t begin = (pass - first) * steps * lines * kLine;
  const size_t bytes = steps * kStepBytes;
  return begin < bytes ? Ahead{weights + bytes + begin, lines} : Ahead{};
}

bool AskForTiles() {
  constexpr long kRequestPermission = 0x1023;  // ARCH_REQ_XCOMP_PERM
  constexpr long kTileData = 18;               // XFEATURE_XTILEDATA
  return UsableCpuIsa() >= CpuIsa::kAmx &&
         syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool TilesAvailable() {
  static const bool available = AskForTiles();
  return available;
}

EXPERTMESH_TILES void TileProduct::Run() const {
  EXPERTMESH_CHECK(inner % kTileInner == 0 && columns % kStripColumns == 0);
  const size_t steps = inner / kTileInner;
  const size_t strips = columns / kStripColumns;
  // 32 rows take two passes over a strip, what is left one or two.
  const size_t left = rows % (2 * kTileRows);
  const size_t passes = rows / (2 * kTileRows) * 2 + (left > kTileRows ? 2 : left > 0 ? 1 : 0);
  size_t configured = 0;
  for (size_t strip = 0; strip < strips; ++strip) {
    const uint8_t* const of_strip = weights + strip * steps * kStepBytes;
    size_t pass = 0;
    for (size_t begin = 0; begin < rows; begin += 2 * kTileRows) {
      const size_t count = std::min(rows - begin, 2 * kTileRows);
      if (count != configured) {
        Configure(count);
        configured = count;
      }
      const uint8_t* const from = x + begin * x_row_bytes;
      float* const to = y + (strip * rows + begin) * kStripColumns;
      const Ahead ahead = AheadOf(of_strip, steps, strip, strips, pass++, passes);
      if (count <= kTileRows) {
        MultiplyFew(from, x_row_bytes, of_strip, steps, ahead, to);
        continue;
      }
      MultiplyMany(from, x_row_bytes, of_strip, steps, ahead, to);
      const Ahead second = AheadOf(of_strip, steps, strip, strips, pass++, passes);
      MultiplyMany(from, x_row_bytes, of_strip + 2 * kTileBytes, steps, second,
                   to + kStripColumns / 2);
    }
  }
  // Tiles in use would be saved at each switch of threads.
  _tile_release();
  MemoryFence();
}

}  // namespace expertmesh::matmul

#else  // !defined(__x86_64__)

namespace expertmesh::matmul {

bool TilesAvailable() { return false; }

void TileProduct::Run() const { EXPERTMESH_CHECK(false); }

}  // namespace expertmesh::matmul

#endif  // defined(__x86_64__)
