// Flags as a program has them, for usage_test.
#include <cstdint>
#include <string>

#include "absl/flags/flag.h"

ABSL_FLAG(uint32_t, test_rows, 7, "Rows of a test");
ABSL_FLAG(bool, test_strict, false, "Whether a test is strict");
