// The life of a server process: signals, and the common ends of every main().
//
//   BlockStopSignals();            // first thing in main, before any thread
//   … start …
//   PrintAddresses(…);
//   WaitForStopSignal();           // SIGTERM or SIGINT
#ifndef SALAMANDER_COMMON_SERVICE_PROCESS_H_
#define SALAMANDER_COMMON_SERVICE_PROCESS_H_

#include <string>

namespace salamander::service {

// SIGINT and SIGTERM wait for WaitForStopSignal from now on, in all threads; SIGPIPE is ignored.
void BlockStopSignals();
// Returns the signal's number.
int WaitForStopSignal();
// Makes a waiting or later WaitForStopSignal return SIGTERM: the process decided itself that it must end. Any thread.
void RequestStop();
// The process gets SIGTERM when its parent dies (used by children of `salamander serve`).
void DieWithParent();
// The one line that programs write to stdout, once they serve, so that whoever started them with port 0 can reach them:
//   serving grpc=127.0.0.1:40001 metrics=127.0.0.1:40002
// and " health=127.0.0.1:40003" if there is such a listener.
void PrintAddresses(const std::string& grpc_address, const std::string& metrics_address,
                    const std::string& health_address = "");

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_PROCESS_H_
