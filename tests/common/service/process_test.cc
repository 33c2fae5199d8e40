#include "common/service/process.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

namespace salamander::service {
namespace {

TEST(ProcessTest, StopSignalsWaitToBeFetched) {
  BlockStopSignals();
  kill(getpid(), SIGINT);
  EXPECT_EQ(WaitForStopSignal(), SIGINT);
  RequestStop();
  EXPECT_EQ(WaitForStopSignal(), SIGTERM);
}

TEST(ProcessTest, WritingToAClosedPipeIsNoEnd) {
  BlockStopSignals();
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  close(ends[0]);
  EXPECT_EQ(write(ends[1], "x", 1), -1);
  close(ends[1]);
}

TEST(ProcessTest, ChildGetsSigtermWhenItsParentDies) {
  BlockStopSignals();
  int report[2], armed[2];
  ASSERT_EQ(pipe(report), 0);
  ASSERT_EQ(pipe(armed), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    if (fork() == 0) {
      DieWithParent();
      char byte = 'a';
      if (write(armed[1], &byte, 1) != 1) _exit(1);
      byte = static_cast<char>(WaitForStopSignal());
      _exit(write(report[1], &byte, 1) == 1 ? 0 : 1);
    }
    char byte = 0;
    _exit(read(armed[0], &byte, 1) == 1 ? 0 : 1);
  }
  close(report[1]);
  ASSERT_EQ(waitpid(parent, nullptr, 0), parent);
  char signal_number = 0;
  EXPECT_EQ(read(report[0], &signal_number, 1), 1);
  EXPECT_EQ(signal_number, SIGTERM);
  for (const int fd : {report[0], armed[0], armed[1]}) close(fd);
}

TEST(ProcessTest, AddressesAreOneLine) {
  ::testing::internal::CaptureStdout();
  PrintAddresses("127.0.0.1:1", "127.0.0.1:2");
  EXPECT_EQ(::testing::internal::GetCapturedStdout(), "serving grpc=127.0.0.1:1 metrics=127.0.0.1:2\n");
}

}  // namespace
}  // namespace salamander::service
