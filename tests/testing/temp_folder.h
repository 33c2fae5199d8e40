// A folder that exists as long as the object.
#ifndef SALAMANDER_TESTS_TESTING_TEMP_FOLDER_H_
#define SALAMANDER_TESTS_TESTING_TEMP_FOLDER_H_

#include <gtest/gtest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

namespace salamander::testing {

class TempFolder {
 public:
  TempFolder() : path_(::testing::TempDir() + "/salamander_test_XXXXXX") {
    if (mkdtemp(path_.data()) == nullptr) ADD_FAILURE() << "no folder " << path_;
  }
  ~TempFolder() {
    std::error_code error;
    std::filesystem::remove_all(path_, error);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  const std::string& path() const { return path_; }
  std::string file(std::string_view name) const { return path_ + "/" + std::string(name); }
  // Writes a file and returns its path.
  std::string Write(std::string_view name, std::string_view content) const {
    std::ofstream out(file(name), std::ios::binary);
    out << content;
    EXPECT_TRUE(out.flush()) << file(name);
    return file(name);
  }

 private:
  std::string path_;
};

}  // namespace salamander::testing

#endif  // SALAMANDER_TESTS_TESTING_TEMP_FOLDER_H_
