// Where tests find their data and the project's programs. From the environment that ctest sets, so that no absolute
// path gets into an object file (which would defeat ccache across clones).
#ifndef SALAMANDER_TESTS_TESTING_PATHS_H_
#define SALAMANDER_TESTS_TESTING_PATHS_H_

#include <cstdlib>
#include <filesystem>
#include <string>

namespace salamander::testing {

// The folder of the running test program; the project's programs are built beside it.
inline std::string BinDir() { return std::filesystem::read_symlink("/proc/self/exe").parent_path().string(); }

// tests/data/NAME of the source tree.
inline std::string TestData(const std::string& name) {
  const char* root = std::getenv("SALAMANDER_TEST_DATA");
  return (root != nullptr ? std::string(root) : BinDir() + "/../../tests/data") + "/" + name;
}

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_PATHS_H_
