// Tokens per second of a mesh, beside those of the same model with its experts in this process.
#ifndef EXPERTMESH_CLIENT_CPP_COMMAND_GENERATE_BENCH_H_
#define EXPERTMESH_CLIENT_CPP_COMMAND_GENERATE_BENCH_H_

#include "absl/status/status.h"
#include "client/cpp/command/options.h"
#include "client/cpp/command/text_model.h"

namespace expertmesh::command {

// Prints a line for 1, 4 and 16 sequences. Options are those of `generate`.
absl::Status BenchGeneration(const Options& options, TextModel* model);

}  // namespace expertmesh::command

#endif  // EXPERTMESH_CLIENT_CPP_COMMAND_GENERATE_BENCH_H_
