// Names of files that no other test, and no other run of the same one, has.
#ifndef EXPERTMESH_TESTS_SUPPORT_TEMP_PATH_H_
#define EXPERTMESH_TESTS_SUPPORT_TEMP_PATH_H_

#include <gtest/gtest.h>
#include <unistd.h>

#include <string>

#include "absl/strings/str_cat.h"

namespace expertmesh {

// In the folder for temporary files, by the running test (no parameter of one) and its process;
// `ending` as in ".json".
inline std::string TempPath(const std::string& ending) {
  const testing::TestInfo& test = *testing::UnitTest::GetInstance()->current_test_info();
  return absl::StrCat(testing::TempDir(), "/", test.test_suite_name(), "_", test.name(), "_",
                      getpid(), ending);
}

}  // namespace expertmesh

#endif  // EXPERTMESH_TESTS_SUPPORT_TEMP_PATH_H_
