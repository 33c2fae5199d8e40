// How programs find the CUDA backend, and what they are told where it cannot be used. Runs on every machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "kernels/cuda.h"
#include "kernels/cuda_plugin.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace salamander::kernels {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

bool Built() { return std::filesystem::exists(salamander::testing::BinDir() + "/libsalamander_cuda.so"); }

TEST(CudaLoaderTest, MissingLibraryIsNamed) {
  const auto plugin = OpenCudaPlugin("/nowhere/libsalamander_cuda.so");
  EXPECT_EQ(plugin.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(plugin.status().message(), HasSubstr("/nowhere/libsalamander_cuda.so: cannot open"));
}

TEST(CudaLoaderTest, LibraryOfAnotherKindIsRefused) {
  const auto plugin = OpenCudaPlugin("libm.so.6");
  EXPECT_EQ(plugin.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(plugin.status().message(), HasSubstr("undefined symbol: salamander_cuda_plugin"));
}

TEST(CudaLoaderTest, LibraryOfAnotherBuildIsRefused) {
  const auto plugin = OpenCudaPlugin(salamander::testing::BinDir() + "/libcuda_plugin_of_another_build.so");
  EXPECT_EQ(plugin.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(plugin.status().message(),
              AllOf(HasSubstr("libcuda_plugin_of_another_build.so has interface 0123"), HasSubstr("different builds")));
}

TEST(CudaLoaderTest, SaysWhyThereIsNoBackend) {
  const auto ops = CreateCudaOps(0);
  if (ops.ok()) GTEST_SKIP() << "there is one: " << (*ops)->name();
  EXPECT_EQ(ops.status().code(), absl::StatusCode::kFailedPrecondition) << ops.status();
  EXPECT_THAT(ops.status().message(), HasSubstr(Built() ? "no GPU" : "built without CUDA?"));
}

// A copy of this program, alone in a folder, is a program that was built without CUDA.
TEST(CudaLoaderTest, ProgramWithoutLibrarySaysSo) {
  const salamander::testing::TempFolder folder;
  const std::string copy = folder.file("copy");
  std::filesystem::copy_file("/proc/self/exe", copy);
  EXPECT_EQ(std::system((copy + " --gtest_filter=*SaysWhyThereIsNoBackend").c_str()), 0);
}

TEST(CudaLoaderTest, DriverThatIsTooOldIsNamed) {
  if (!Built()) GTEST_SKIP() << "built without CUDA";
  const char* const expected = std::getenv("SALAMANDER_EXPECT_OLD_DRIVER");
  if (expected ==
      nullptr) {  // The runtime looks for a driver once a process: one with the old driver before all others.
    const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe");
    const char* const path = std::getenv("LD_LIBRARY_PATH");
    const std::string command = "SALAMANDER_EXPECT_OLD_DRIVER=1 LD_LIBRARY_PATH=" + self.parent_path().string() +
                                "/old_driver:" + (path == nullptr ? "" : path) + " " + self.string() +
                                " --gtest_filter=*DriverThatIsTooOldIsNamed";
    EXPECT_EQ(std::system(command.c_str()), 0);
    return;
  }
  const auto ops = CreateCudaOps(0);
  EXPECT_EQ(ops.status().code(), absl::StatusCode::kFailedPrecondition) << ops.status();
  EXPECT_THAT(ops.status().message(),
              HasSubstr("the driver is too old: it is for CUDA up to 11.4, this build needs 1"));
}

TEST(CudaLoaderTest, DeviceOutOfRangeIsRefused) {
  if (!CreateCudaOps(0).ok()) GTEST_SKIP() << CreateCudaOps(0).status();
  for (const int device : {-1, 1000}) {
    const auto ops = CreateCudaOps(device);
    EXPECT_EQ(ops.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(ops.status().message(), HasSubstr("device must be in [0, "));
  }
}

}  // namespace
}  // namespace salamander::kernels
