// The `salamander` program against a scripted router.
#include "tests/clients/command.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>

#include "absl/synchronization/notification.h"
#include "tests/clients/fake_router.h"

namespace salamander::testing {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

class CommandTest : public ::testing::Test {
 protected:
  std::vector<std::string> Generate(const std::vector<std::string>& more) {
    std::vector<std::string> args = {"generate", "--target=" + router_.address()};
    args.insert(args.end(), more.begin(), more.end());
    return args;
  }
  // Streams until the client is gone.
  void RunUntilCancelled() {
    router_.set_script([this](grpc::ServerContext& context, const v1::GenerateRequest&, FakeRouter::Writer& writer) {
      v1::GenerateResponse response;
      response.mutable_tokens()->add_ids(1);
      response.mutable_tokens()->set_text("first words");
      writer.Write(response);
      while (!context.IsCancelled()) std::this_thread::sleep_for(std::chrono::milliseconds(5));
      cancelled_.Notify();
      return grpc::Status::CANCELLED;
    });
  }
  std::string WriteFile(const std::string& name, const std::string& content) {
    const std::string path = ::testing::TempDir() + name + std::to_string(getpid());
    std::ofstream(path) << content;
    return path;
  }
  FakeRouter router_;
  absl::Notification cancelled_;
};

TEST_F(CommandTest, GenerateStreamsTextAndThenWhereTheTimeWent) {
  Command command(Generate({"--prompt=hi"}));
  EXPECT_EQ(command.Wait(), 0);
  EXPECT_EQ(command.out(), "Hello there\n");
  EXPECT_THAT(command.err(), StartsWith("time to first token 21.000 s = router queue 1.000 + prefill queue 2.000"));
  EXPECT_EQ(router_.last_request().prompt().text(), "hi");
}

TEST_F(CommandTest, ProgressBarOnlyOnATerminal) {
  Command piped(Generate({"--prompt=hi"}));
  EXPECT_EQ(piped.Wait(), 0);
  EXPECT_THAT(piped.err(), Not(HasSubstr("prefill [")));
  EXPECT_THAT(piped.err(), Not(HasSubstr("\r")));

  Command terminal(Generate({"--prompt=hi"}), {.terminal = true});
  EXPECT_EQ(terminal.Wait(), 0);
  EXPECT_THAT(terminal.err(), HasSubstr("prefill [#"));
  EXPECT_THAT(terminal.err(), HasSubstr("1,000 / 2,000 tokens  500 tokens/s  0:02 left"));
  // The bar is wiped before anything else is written.
  EXPECT_THAT(terminal.err(), HasSubstr("\r\x1b[Ktime to first token"));
  EXPECT_EQ(terminal.out(), "Hello there\n");
}

TEST_F(CommandTest, JsonIsOneObjectOnStdout) {
  Command command(Generate({"--prompt=hi", "--logprobs=1", "--json"}), {.terminal = true});
  EXPECT_EQ(command.Wait(), 0);
  const auto parsed = nlohmann::json::parse(command.out(), nullptr, false);
  ASSERT_TRUE(parsed.is_object()) << command.out();
  EXPECT_EQ(parsed["tokens"], nlohmann::json({11, 12}));
  EXPECT_EQ(parsed["text"], "Hello there");
  EXPECT_EQ(parsed["finish_reason"], "length");
  EXPECT_EQ(parsed["logprobs"][1]["top"][0]["token"], 112);
  EXPECT_EQ(parsed["timing"]["ttft_s"], 21.0);
  EXPECT_EQ(parsed["plan"]["spans"][1]["end"], 2000);
  EXPECT_THAT(command.err(), Not(HasSubstr("time to first token")));
}

TEST_F(CommandTest, EveryOptionArrives) {
  Command command(Generate({"--prompt=hi", "--chat", "--max_tokens=5", "--temperature=0", "--top_p=0.5", "--top_k=3",
                            "--min_p=0.25", "--seed=18446744073709551615", "--stop=a,b", "--stop", "c",
                            "--stop_token=9", "--ignore_eos", "--logprobs=2", "--priority=-3",
                            "--repetition_penalty=1.5", "--presence_penalty=-1", "--frequency_penalty=2"}));
  ASSERT_EQ(command.Wait(), 0) << command.err();
  const v1::GenerateRequest sent = router_.last_request();
  EXPECT_EQ(sent.prompt().chat().messages(0).role(), "user");
  EXPECT_EQ(sent.prompt().chat().messages(0).content(), "hi");
  EXPECT_EQ(sent.max_tokens(), 5);
  EXPECT_TRUE(sent.sampling().has_temperature());
  EXPECT_EQ(sent.sampling().top_p(), 0.5F);
  EXPECT_EQ(sent.sampling().top_k(), 3);
  EXPECT_EQ(sent.sampling().min_p(), 0.25F);
  EXPECT_EQ(sent.sampling().seed(), UINT64_MAX);
  EXPECT_EQ(sent.sampling().repetition_penalty(), 1.5F);
  EXPECT_EQ(sent.sampling().presence_penalty(), -1);
  EXPECT_EQ(sent.sampling().frequency_penalty(), 2);
  ASSERT_EQ(sent.stop_size(), 3);
  EXPECT_EQ(sent.stop(0).text(), "a,b");
  EXPECT_EQ(sent.stop(1).text(), "c");
  EXPECT_EQ(sent.stop(2).token_id(), 9);
  EXPECT_TRUE(sent.ignore_eos());
  EXPECT_EQ(sent.logprobs(), 2);
  EXPECT_EQ(sent.priority(), -3);
}

TEST_F(CommandTest, PromptFromFileStdinAndTokens) {
  Command file(Generate({"--prompt_file", WriteFile("prompt", "two\nlines\n")}));
  EXPECT_EQ(file.Wait(), 0);
  EXPECT_EQ(router_.last_request().prompt().text(), "two\nlines\n");

  Command piped(Generate({"--prompt_file=-"}), {.input = "from a pipe"});
  EXPECT_EQ(piped.Wait(), 0);
  EXPECT_EQ(router_.last_request().prompt().text(), "from a pipe");

  Command tokens(Generate({"--prompt_tokens", WriteFile("tokens", "[1, -2, 3]")}));
  EXPECT_EQ(tokens.Wait(), 0);
  EXPECT_THAT(router_.last_request().prompt().tokens().ids(), ElementsAre(1, -2, 3));

  // An empty prompt is the router's to refuse.
  Command empty(Generate({"--prompt="}));
  EXPECT_EQ(empty.Wait(), 0);
  EXPECT_TRUE(router_.last_request().prompt().has_text());
}

TEST_F(CommandTest, BadFlagsExitWith2AndName) {
  const std::pair<std::vector<std::string>, const char*> cases[] = {
      {Generate({"--prompt=hi", "--max_tokens=many"}), "--max_tokens must be INTEGER, got 'many'"},
      {Generate({"--prompt=hi", "--colour=red"}), "unknown flag --colour"},
      {Generate({}), "exactly one of --prompt, --prompt_file and --prompt_tokens"},
      {Generate({"--prompt=hi", "--prompt_file=x"}), "exactly one of --prompt"},
      {Generate({"--prompt_file=/nonexistent"}), "--prompt_file: cannot read '/nonexistent': No such file"},
      {Generate({"--prompt_tokens", WriteFile("bad", "[1, 2.5]")}), "token 1 must be a 32-bit integer, got 2.5"},
      {Generate({"--prompt_tokens", WriteFile("big", "[18446744073709551615]")}), "must be a 32-bit integer"},
      {Generate({"--prompt_tokens", WriteFile("worse", "nonsense")}), "must be a JSON array of token ids"},
      {{"generate", "--prompt=hi"}, "--target must be given"},
      {{"serve"}, "--model must be given"},
      {{"serve", "--model=x", "--prefill_workers=0"}, "--prefill_workers must be in [1, 64], got 0"},
      {{"serve", "--model=x", "--listen=7000"}, "--listen must be HOST:PORT, got '7000'"},
      {{"dance"}, "unknown command 'dance'"},
  };
  for (const auto& [args, message] : cases) {
    Command command(args);
    EXPECT_EQ(command.Wait(), 2) << message;
    EXPECT_THAT(command.err(), HasSubstr(message));
    EXPECT_EQ(command.out(), "");
  }
}

TEST_F(CommandTest, ErrorsOfTheRouterExitWith1) {
  router_.set_script([](grpc::ServerContext&, const v1::GenerateRequest&, FakeRouter::Writer&) {
    return grpc::Status(grpc::StatusCode::RESOURCE_EXHAUSTED, "the queue is full");
  });
  Command command(Generate({"--prompt=hi"}));
  EXPECT_EQ(command.Wait(), 1);
  EXPECT_EQ(command.err(), "error: RESOURCE_EXHAUSTED: the queue is full\n");
  EXPECT_EQ(command.out(), "");
}

TEST_F(CommandTest, NamesTheTargetThatDoesNotAnswer) {
  Command command({"generate", "--target=127.0.0.1:1", "--prompt=hi"});
  EXPECT_EQ(command.Wait(), 1);
  EXPECT_THAT(command.err(), StartsWith("error: UNAVAILABLE: no connection to 127.0.0.1:1 after "));
}

TEST_F(CommandTest, DeadlineReachesTheRouter) {
  RunUntilCancelled();
  Command command(Generate({"--prompt=hi", "--deadline=0.3"}));
  EXPECT_EQ(command.Wait(), 1);
  EXPECT_THAT(command.err(), HasSubstr("error: DEADLINE_EXCEEDED"));
  EXPECT_TRUE(cancelled_.WaitForNotificationWithTimeout(absl::Seconds(10)));
}

TEST_F(CommandTest, CtrlCCancelsAtTheRouterAndExitsWith130) {
  RunUntilCancelled();
  Command command(Generate({"--prompt=hi"}));
  ASSERT_TRUE(command.WaitFor("first words"));
  command.Signal(SIGINT);
  EXPECT_EQ(command.Wait(), 130);
  EXPECT_TRUE(cancelled_.WaitForNotificationWithTimeout(absl::Seconds(10)));
  EXPECT_EQ(command.out(), "first words\n");
  EXPECT_EQ(command.err(), "");
}

TEST_F(CommandTest, StatusAsTableAndJson) {
  router_.set_status(SampleStatus());
  Command table({"status", "--target", router_.address()});
  EXPECT_EQ(table.Wait(), 0);
  EXPECT_THAT(table.out(), HasSubstr("prefill-0  prefill  yes    3         12,345"));
  EXPECT_THAT(table.out(), HasSubstr("2.5 GiB/s  tcp"));
  Command json({"status", "--target", router_.address(), "--json"});
  EXPECT_EQ(json.Wait(), 0);
  const auto parsed = nlohmann::json::parse(json.out(), nullptr, false);
  ASSERT_TRUE(parsed.is_object());
  EXPECT_EQ(parsed["workers"][0]["links"][0]["bytes_per_s"], 2.5 * (1 << 30));
}

TEST_F(CommandTest, TokenizePrintsIds) {
  Command command({"tokenize", "--target", router_.address(), "--prompt=AB"});
  EXPECT_EQ(command.Wait(), 0);
  EXPECT_EQ(command.out(), "[65,66]\n");
}

TEST_F(CommandTest, ChatKeepsTheHistory) {
  Command command({"chat", "--target", router_.address(), "--system=be brief", "--max_tokens=3"},
                  {.input = "one\n\ntwo\n"});
  EXPECT_EQ(command.Wait(), 0) << command.err();
  EXPECT_EQ(command.out(), "Hello there\nHello there\n");
  const v1::GenerateRequest sent = router_.last_request();
  std::vector<std::string> history;
  for (const v1::ChatMessage& message : sent.prompt().chat().messages()) {
    history.push_back(message.role() + ": " + message.content());
  }
  EXPECT_THAT(history, ElementsAre("system: be brief", "user: one", "assistant: Hello there", "user: two"));
  EXPECT_EQ(sent.max_tokens(), 3);
}

TEST(HelpTest, EachCommandShowsItsOwnFlags) {
  for (const std::string name : {"serve", "generate", "chat", "status", "tokenize"}) {
    Command direct({name, "--help"}), through({"help", name});
    EXPECT_EQ(direct.Wait(), 0);
    EXPECT_EQ(through.Wait(), 0);
    EXPECT_THAT(direct.out(), StartsWith("Usage: salamander " + name + " [flags]"));
    EXPECT_EQ(direct.out(), through.out());
    EXPECT_EQ(direct.out().find("--prefill_workers") != std::string::npos, name == "serve");
  }
  Command version({"version"});
  EXPECT_EQ(version.Wait(), 0);
  EXPECT_THAT(version.out(), StartsWith("salamander 0."));
  Command nothing({});
  EXPECT_EQ(nothing.Wait(), 2);
}

}  // namespace
}  // namespace salamander::testing
