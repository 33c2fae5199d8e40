// `salamander serve` with stand-ins for the router and the workers (fake_role.cc).
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/socket.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <thread>

#include "common/base/clock.h"
#include "tests/clients/command.h"
#include "tests/testing/paths.h"

namespace salamander::testing {
namespace {

using ::testing::HasSubstr;
using ::testing::MatchesRegex;
using ::testing::Not;

class ServeTest : public ::testing::Test {
 protected:
  ServeTest()
      : log_(::testing::TempDir() + "serve_log_" + std::to_string(getpid()) + "_" +
             ::testing::UnitTest::GetInstance()->current_test_info()->name()) {
    std::remove(log_.c_str());
  }
  ~ServeTest() override { std::remove(log_.c_str()); }

  std::vector<std::string> Args(const std::vector<std::string>& more = {}) {
    std::vector<std::string> args = {"serve", "--model=any", "--listen=127.0.0.1:0",
                                     "--bin_dir=" + BinDir() + "/fake_roles"};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  CommandOptions Options(std::vector<std::string> environment = {}) {
    environment.push_back("FAKE_LOG=" + log_);
    environment.push_back("FAKE_WORKERS=2 1");
    return {.environment = environment};
  }
  std::string Log() {
    std::ostringstream text;
    text << std::ifstream(log_).rdbuf();
    return text.str();
  }

  std::string log_;
};

// The pid that serve told for a child; 0 if none.
pid_t PidOf(const Command& serve, const std::string& name) {
  const size_t line = serve.out().find(name + " grpc=");
  if (line == std::string::npos) return 0;
  return std::stoi(serve.out().substr(serve.out().find("pid=", line) + 4));
}

// Whether a process runs (one that has ended and waits to be reaped does not).
bool Runs(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string stat;
  if (!std::getline(file, stat)) return false;
  const char state = stat[stat.rfind(')') + 2];
  return state != 'Z' && state != 'X';
}

// Ends are asynchronous: asks for up to ten seconds.
bool EndsSoon(pid_t pid) {
  const double until = RealClock().Now() + 10;
  while (Runs(pid) && RealClock().Now() < until) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  return !Runs(pid);
}

TEST_F(ServeTest, PrintsAddressesThenReadyAndStopsInOrder) {
  Command serve(Args(), Options());
  ASSERT_TRUE(serve.WaitFor("ready 127.0.0.1:")) << serve.err();
  EXPECT_THAT(serve.out(), MatchesRegex("router grpc=127.0.0.1:[0-9]+ metrics=127.0.0.1:1 pid=[0-9]+\n"
                                        "prefill-0 grpc=127.0.0.1:2 metrics=127.0.0.1:1 pid=[0-9]+\n"
                                        "prefill-1 grpc=127.0.0.1:2 metrics=127.0.0.1:1 pid=[0-9]+\n"
                                        "decode-0 grpc=127.0.0.1:2 metrics=127.0.0.1:1 pid=[0-9]+\n"
                                        "ready 127.0.0.1:[0-9]+\n"));
  const pid_t router = PidOf(serve, "router"), worker = PidOf(serve, "decode-0");
  EXPECT_TRUE(Runs(router) && Runs(worker));
  serve.Signal(SIGINT);
  EXPECT_EQ(serve.Wait(), 0);
  EXPECT_EQ(serve.err(), "");
  EXPECT_FALSE(Runs(router));
  EXPECT_FALSE(Runs(worker));
  const std::string log = Log();
  const size_t router_told = log.find("router: told to stop");
  for (const char* name : {"prefill-0", "prefill-1", "decode-0"}) {
    const size_t worker_told = log.find(std::string(name) + ": told to stop");
    ASSERT_NE(worker_told, std::string::npos) << name << "\n" << log;
    EXPECT_LT(router_told, worker_told) << name;
  }
}

TEST_F(ServeTest, IsNotReadyBeforeTheRouterIs) {
  // More answers than it asks for while the workers start.
  Command serve(Args(), Options({"FAKE_NOT_READY=20"}));
  ASSERT_TRUE(serve.WaitFor("ready 127.0.0.1:")) << serve.err();
  const std::string log = Log();
  int not_ready = 0;
  for (size_t at = 0; (at = log.find("said not ready", at)) != std::string::npos; ++at) ++not_ready;
  EXPECT_EQ(not_ready, 20);
  serve.Signal(SIGTERM);
  EXPECT_EQ(serve.Wait(), 0);
}

TEST_F(ServeTest, IsNotReadyWithFewerWorkersThanAskedFor) {
  Command serve(Args({"--prefill_workers=3"}), Options());  // the router tells of two
  EXPECT_FALSE(serve.WaitFor("ready 127.0.0.1:", 1));
  EXPECT_THAT(Log(), HasSubstr("router: said ready"));
  serve.Signal(SIGTERM);
  EXPECT_EQ(serve.Wait(), 0);
}

TEST_F(ServeTest, TellsTheLastWordsOfAChildThatDoesNotStart) {
  for (const std::string name : {"router", "prefill-1", "decode-0"}) {
    Command serve(Args(), Options({"FAKE_DIES=" + name}));
    EXPECT_EQ(serve.Wait(), 1);
    EXPECT_THAT(serve.err(), HasSubstr("error: ABORTED: " + name +
                                       " exited with status 3; its last words:\n  error: " + name + " has no heart\n"));
    EXPECT_THAT(serve.out(), Not(HasSubstr("ready")));
  }
}

TEST_F(ServeTest, EndsWhenAChildIsKilled) {
  Command serve(Args(), Options());
  ASSERT_TRUE(serve.WaitFor("ready 127.0.0.1:")) << serve.err();
  const pid_t router = PidOf(serve, "router");
  kill(PidOf(serve, "prefill-1"), SIGKILL);
  EXPECT_EQ(serve.Wait(), 1);
  EXPECT_THAT(serve.err(), HasSubstr("prefill-1 was ended by signal 9 (Killed)"));
  EXPECT_FALSE(Runs(router));
}

TEST_F(ServeTest, ChildrenDieWithIt) {
  Command serve(Args(), Options({"FAKE_DEAF=prefill-0"}));
  ASSERT_TRUE(serve.WaitFor("ready 127.0.0.1:")) << serve.err();
  serve.Signal(SIGKILL);
  for (const char* name : {"router", "prefill-0", "prefill-1", "decode-0"}) {
    EXPECT_TRUE(EndsSoon(PidOf(serve, name))) << name;
  }
}

TEST_F(ServeTest, KillsAChildThatDoesNotStop) {
  Command serve(Args({"--grace_seconds=0"}), Options({"FAKE_DEAF=decode-0"}));
  ASSERT_TRUE(serve.WaitFor("ready 127.0.0.1:")) << serve.err();
  const pid_t deaf = PidOf(serve, "decode-0");
  serve.Signal(SIGTERM);
  EXPECT_EQ(serve.Wait(), 0);
  EXPECT_FALSE(Runs(deaf));
}

TEST_F(ServeTest, VerboseShowsTheChildrensLines) {
  Command serve(Args({"--verbose"}), Options());
  ASSERT_TRUE(serve.WaitFor("ready 127.0.0.1:")) << serve.err();
  serve.Signal(SIGTERM);
  EXPECT_EQ(serve.Wait(), 0);
  EXPECT_THAT(serve.err(), HasSubstr("prefill-1| serving grpc=127.0.0.1:2 metrics=127.0.0.1:1"));
  EXPECT_THAT(serve.err(), HasSubstr("cluster: starting workers -> serving"));
}

TEST_F(ServeTest, NamesTheProgramThatIsMissing) {
  Command serve({"serve", "--model=any", "--listen=127.0.0.1:0", "--bin_dir=/nonexistent"});
  EXPECT_EQ(serve.Wait(), 1);
  EXPECT_THAT(serve.err(), HasSubstr("router exited with status 127; its last words:\n"
                                     "  /nonexistent/salamander-router: No such file or directory"));
}

TEST_F(ServeTest, NamesThePortThatIsTaken) {
  const int taken = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t size = sizeof(address);
  ASSERT_EQ(bind(taken, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(listen(taken, 1), 0);
  getsockname(taken, reinterpret_cast<sockaddr*>(&address), &size);
  const std::string listen_at = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  Command serve({"serve", "--model=any", "--listen=" + listen_at});
  EXPECT_EQ(serve.Wait(), 1);
  EXPECT_EQ(serve.err(), "error: UNAVAILABLE: --listen " + listen_at + ": Address already in use\n");
  close(taken);
}

}  // namespace
}  // namespace salamander::testing
