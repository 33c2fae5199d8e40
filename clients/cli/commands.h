// The subcommands of `salamander`. Each gets the arguments after its name and returns the process's exit code. To add
// one: declare it here, write it in a file of its name, and give it a row in main.cc's table.
#ifndef SALAMANDER_CLIENTS_CLI_COMMANDS_H_
#define SALAMANDER_CLIENTS_CLI_COMMANDS_H_

#include <string>

#include "clients/cli/flags.h"

namespace salamander::cli {

int RunServe(const Args& args);
int RunGenerate(const Args& args);
int RunLocal(const Args& args);
int RunChat(const Args& args);
int RunTokenize(const Args& args);
int RunStatus(const Args& args);
int RunBench(const Args& args);
int RunBenchServe(const Args& args);

// Replaces this process by a program beside it, with these arguments. Returns only on failure.
int ExecRole(const std::string& program, const Args& args);

}  // namespace salamander::cli

#endif  // SALAMANDER_CLIENTS_CLI_COMMANDS_H_
