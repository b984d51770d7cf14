// The entries of the table of families; each lies in a family_*.cc. Used by families.cc only.
#ifndef EXPERTMESH_COMMON_CHECKPOINT_FAMILY_ENTRIES_H_
#define EXPERTMESH_COMMON_CHECKPOINT_FAMILY_ENTRIES_H_

#include "common/checkpoint/families.h"

namespace expertmesh::checkpoint {

const Family& MixtralFamily();
const Family& DeepseekMoeFamily();
const Family& DeepseekV2Family();
const Family& DeepseekV3Family();
const Family& Glm4MoeFamily();
const Family& Qwen2MoeFamily();
const Family& Qwen3MoeFamily();
const Family& OlmoeFamily();
const Family& GraniteMoeFamily();
const Family& GraniteSharedFamily();
const Family& GptOssFamily();
const Family& Llama4Family();
const Family& PhimoeFamily();
const Family& DbrxFamily();
const Family& JambaFamily();
const Family& SwitchFamily();
const Family& NllbMoeFamily();
const Family& Lfm2MoeFamily();
const Family& Ernie45MoeFamily();
const Family& MinimaxM2Family();

}  // namespace expertmesh::checkpoint

#endif  // EXPERTMESH_COMMON_CHECKPOINT_FAMILY_ENTRIES_H_
