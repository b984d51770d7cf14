// The ids that end a text, by the files beside a tokenizer.json.
#ifndef EXPERTMESH_CLIENT_CPP_TOKENIZER_EOS_IDS_H_
#define EXPERTMESH_CLIENT_CPP_TOKENIZER_EOS_IDS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "client/cpp/tokenizer/tokenizer.h"

namespace expertmesh {

// See Tokenizer::eos_ids. Empty when no file says. INVALID_ARGUMENT when the one that does cannot
// be read.
absl::StatusOr<std::vector<uint32_t>> ReadEosIds(const std::string& folder,
                                                 const Tokenizer& tokenizer);

}  // namespace expertmesh

#endif  // EXPERTMESH_CLIENT_CPP_TOKENIZER_EOS_IDS_H_
