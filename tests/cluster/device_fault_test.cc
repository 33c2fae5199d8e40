// A device that fails under a request, in clusters that `salamander serve` starts: the client is told by which worker
// and op, the worker's process ends and says so, and nothing hangs. tests/gpu/fault_check.py does the same with a GPU.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "tests/clients/command.h"
#include "tests/clients/golden_prompt.h"
#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace salamander::testing {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

// From a fault to the client's error, and to the end of serve.
constexpr double kNoticeSeconds = 5;
constexpr double kEndSeconds = 20;

// The programs beside a backend that fails.
class DeviceFaultTest : public ::testing::Test {
 protected:
  DeviceFaultTest() {
    for (const char* program :
         {"salamander-router", "salamander-worker", "salamander-prefill-worker", "salamander-decode-worker"}) {
      std::filesystem::copy_file(BinDir() + "/" + program, folder_.file(program));
    }
    std::filesystem::copy_file(BinDir() + "/libsalamander_faulty_device.so", folder_.file("libsalamander_cuda.so"));
  }
  ~DeviceFaultTest() override { std::filesystem::remove(golden_.prompt_file); }

  // `fault` as faulty_ops.h says, in that program, counted from Arm on.
  std::unique_ptr<Command> Serve(const std::string& fault, const std::string& program = "salamander-worker") {
    std::vector<std::string> args = {"serve",
                                     "--model=" + golden_.checkpoint,
                                     "--bin_dir=" + folder_.path(),
                                     "--device=cuda",
                                     "--listen=127.0.0.1:0",
                                     "--span_tokens=128",
                                     "--min_span_tokens=128",
                                     "--memory_bytes=1073741824",
                                     "--grace_seconds=5"};
    if (program != "salamander-worker") args.insert(args.end(), {"--prefill_workers=1", "--decode_workers=1"});
    return std::make_unique<Command>(
        args, CommandOptions{.environment = {"SALAMANDER_TEST_FAULT=" + fault, "SALAMANDER_TEST_FAULT_IN=" + program,
                                             "SALAMANDER_TEST_FAULT_FROM=" + folder_.file("armed"),
                                             "SALAMANDER_TEST_BACKEND=" + BinDir() + "/libsalamander_cpu_device.so"}});
  }
  void Arm() { folder_.Write("armed", ""); }

  // Starts a cluster, sees it work, makes it fail under a request, and sees who hears what. `worker` as clients know
  // it, `process` as serve does.
  void ExpectEnds(const std::string& fault, const std::string& program, const std::string& worker,
                  const std::string& process) {
    SCOPED_TRACE(fault);
    std::filesystem::remove(folder_.file("armed"));
    const std::unique_ptr<Command> serve = Serve(fault, program);
    ASSERT_TRUE(serve->WaitFor("\nready ", 60)) << serve->err();
    ExpectAnswers(*serve);
    Arm();
    const double begin = RealClock().Now();
    const std::unique_ptr<Command> request = Generate(*serve);
    EXPECT_EQ(request->Wait(), 1) << request->out();
    EXPECT_LT(RealClock().Now() - begin, kNoticeSeconds);
    const std::string why =
        absl::StrCat("cuda: synchronize: the device is lost; ops under way: ", fault.substr(0, fault.find(':')));
    EXPECT_THAT(request->err(), AllOf(HasSubstr("error: UNAVAILABLE: "), HasSubstr(worker), HasSubstr(why)));
    EXPECT_EQ(serve->Wait(kEndSeconds), 1);
    EXPECT_THAT(serve->err(), AllOf(HasSubstr(process + " exited with status 1; its last words:"),
                                    HasSubstr("INTERNAL: "), HasSubstr(why)));
  }
  void ExpectAnswers(Command& serve) {
    const std::unique_ptr<Command> request = Generate(serve);
    ASSERT_EQ(request->Wait(60), 0) << request->err();
    EXPECT_EQ(nlohmann::json::parse(request->out())["tokens"], nlohmann::json(golden_.continuation));
  }
  std::unique_ptr<Command> Generate(Command& serve) {
    const size_t begin = serve.out().find("\nready ") + 7;
    const std::string address = serve.out().substr(begin, serve.out().find('\n', begin) - begin);
    return std::make_unique<Command>(std::vector<std::string>{
        "generate", "--target=" + address, "--prompt_tokens=" + golden_.prompt_file, "--ignore_eos", "--json",
        "--temperature=0", absl::StrCat("--max_tokens=", golden_.continuation.size())});
  }

  const TempFolder folder_;
  const GoldenPrompt golden_ = LoadGoldenPrompt("sparse");
};

TEST_F(DeviceFaultTest, OneProcessWithBothRoles) {
  ExpectEnds("silu_mul:20:lost", "salamander-worker", "prefill worker worker-0-prefill", "worker-0");
  ExpectEnds("logits:3:lost", "salamander-worker", "decode worker worker-0-decode", "worker-0");
}

TEST_F(DeviceFaultTest, PrefillWorker) {
  ExpectEnds("select_blocks:2:lost", "salamander-prefill-worker", "prefill worker prefill-0", "prefill-0");
}

TEST_F(DeviceFaultTest, DecodeWorker) {
  // Tiers, the first token and a later step.
  for (const char* fault : {"pool_tiers:1:lost", "logits:1:lost", "lightning:4:lost"}) {
    ExpectEnds(fault, "salamander-decode-worker", "decode worker decode-0", "decode-0");
  }
}

// A request that no memory was found for waits for some; others never hear of it.
TEST_F(DeviceFaultTest, FailedAllocationsOfARequestAreTriedAgain) {
  const std::unique_ptr<Command> serve = Serve("allocate:2:memory");
  ASSERT_TRUE(serve->WaitFor("\nready ", 60)) << serve->err();
  Arm();
  ExpectAnswers(*serve);
  ExpectAnswers(*serve);
  serve->Signal(SIGTERM);
  EXPECT_EQ(serve->Wait(kEndSeconds), 0) << serve->err();
}

TEST_F(DeviceFaultTest, AllocationThatFailsAtStartIsNamed) {
  Arm();
  const std::unique_ptr<Command> serve = Serve("allocate:5:memory");
  EXPECT_EQ(serve->Wait(kEndSeconds), 1);
  EXPECT_THAT(serve->err(), AllOf(HasSubstr("worker-0 exited with status 1"), HasSubstr("RESOURCE_EXHAUSTED: "),
                                  HasSubstr("bytes of device memory")));
}

}  // namespace
}  // namespace salamander::testing
