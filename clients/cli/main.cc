// `salamander SUBCOMMAND [flags]`.
#include <cstdio>
#include <cstring>
#include <functional>
#include <string>

#include "clients/cli/commands.h"
#include "common/base/log.h"
#include "common/service/grpc_log.h"
#include "common/service/version.h"

namespace salamander::cli {
namespace {

struct Command {
  const char* name;
  const char* summary;
  std::function<int(const Args&)> run;
};

int RunVersion(const Args&) {
  std::printf("salamander %s\n", service::BuildVersion().c_str());
  return 0;
}

int RunHelp(const Args& args);

const Command kCommands[] = {
    {"serve", "start a router and workers on this machine", RunServe},
    {"generate", "send a prompt to a router and stream the answer", RunGenerate},
    {"chat", "talk with the model", RunChat},
    {"run", "generate in this process, without a cluster", RunLocal},
    {"status", "show a cluster's workers, load, memory and links", RunStatus},
    {"bench", "measure a model on this machine; bench serve: load a cluster", RunBench},
    {"tokenize", "show the token ids of a prompt", RunTokenize},
    {"router", "start a router", [](const Args& args) { return ExecRole("salamander-router", args); }},
    {"prefill-worker", "start a prefill worker",
     [](const Args& args) { return ExecRole("salamander-prefill-worker", args); }},
    {"decode-worker", "start a decode worker",
     [](const Args& args) { return ExecRole("salamander-decode-worker", args); }},
    {"worker", "start a worker of both roles on one device",
     [](const Args& args) { return ExecRole("salamander-worker", args); }},
    {"version", "show this program's version", RunVersion},
    {"help", "show this list, or a command's flags", RunHelp},
};

void PrintUsage(FILE* to) {
  std::fprintf(to, "Usage: salamander COMMAND [flags]\n\nCommands:\n");
  for (const Command& command : kCommands) std::fprintf(to, "  %-16s%s\n", command.name, command.summary);
  std::fprintf(to, "\nsalamander COMMAND --help shows a command's flags.\n");
}

const Command* Find(const std::string& name) {
  for (const Command& command : kCommands) {
    if (name == command.name) return &command;
  }
  return nullptr;
}

int UnknownCommand(const std::string& name) {
  std::fprintf(stderr, "error: unknown command '%s'\n", name.c_str());
  PrintUsage(stderr);
  return kExitUsage;
}

int RunHelp(const Args& args) {
  if (args.empty()) {
    PrintUsage(stdout);
    return 0;
  }
  const Command* command = Find(args[0]);
  if (command == nullptr) return UnknownCommand(args[0]);
  // These two take no flags.
  if (args[0] == "help" || args[0] == "version") {
    std::printf("salamander %s: %s\n", command->name, command->summary);
    return 0;
  }
  return command->run({"--help"});
}

int Main(int argc, char** argv) {
  // What a command has to say it says itself; serve turns its log on.
  InitLog("salamander", LogLevel::kError);
  service::RouteGrpcLogs();
  if (argc < 2) {
    PrintUsage(stderr);
    return kExitUsage;
  }
  std::string name = argv[1];
  if (name == "--help" || name == "-h") name = "help";
  if (name == "--version") name = "version";
  const Command* command = Find(name);
  if (command == nullptr) return UnknownCommand(name);
  return command->run(Args(argv + 2, argv + argc));
}

}  // namespace
}  // namespace salamander::cli

int main(int argc, char** argv) { return salamander::cli::Main(argc, argv); }
