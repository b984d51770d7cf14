// What attention remembers of the tokens of one sequence.
#ifndef EXPERTMESH_CLIENT_CPP_DECODER_KV_CACHE_H_
#define EXPERTMESH_CLIENT_CPP_DECODER_KV_CACHE_H_

#include <algorithm>
#include <cstddef>
#include <vector>

namespace expertmesh::decoder {

// What one layer remembers, row by row, float32. Grouped attention: [tokens, kv_heads * head_dim]
// each. Latent attention: keys are [tokens, kv_rank + rope], and values their first kv_rank
// columns.
struct LayerCache {
  std::vector<float> keys;
  std::vector<float> values;
};

// Belongs to one sequence of one decoder. Not thread-safe.
class KvCache {
 public:
  explicit KvCache(size_t layers) : layers_(layers) {}

  // Tokens that have been through all layers.
  size_t tokens() const { return tokens_; }
  void Advance(size_t tokens) { tokens_ += tokens; }

  // It is going to hold so many: memory is taken once, not again and again while it grows.
  void Expect(size_t tokens) { expected_ = tokens; }

  // The caches of a layer with room for `tokens` more rows of these widths at the end, which the
  // caller fills.
  LayerCache& Grow(size_t layer, size_t tokens, size_t key_width, size_t value_width) {
    LayerCache& cache = layers_[layer];
    const size_t rows = std::max(expected_, tokens_ + tokens);
    cache.keys.reserve(rows * key_width);
    cache.values.reserve(rows * value_width);
    cache.keys.resize((tokens_ + tokens) * key_width);
    cache.values.resize((tokens_ + tokens) * value_width);
    return cache;
  }
  LayerCache& layer(size_t index) { return layers_[index]; }

 private:
  size_t tokens_ = 0;
  size_t expected_ = 0;
  std::vector<LayerCache> layers_;
};

}  // namespace expertmesh::decoder

#endif  // EXPERTMESH_CLIENT_CPP_DECODER_KV_CACHE_H_
