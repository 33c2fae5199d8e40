// The life of a server process: signals, and the common end of every main().
//
//   BlockStopSignals();            // first thing in main, before any thread
//   … start …
//   WaitForStopSignal();           // SIGTERM or SIGINT
#ifndef SALAMANDER_COMMON_SERVICE_PROCESS_H_
#define SALAMANDER_COMMON_SERVICE_PROCESS_H_

namespace salamander::service {

// SIGINT and SIGTERM wait for WaitForStopSignal from now on, in all threads; SIGPIPE is ignored.
void BlockStopSignals();
// Returns the signal's number.
int WaitForStopSignal();
// The process gets SIGTERM when its parent dies (used by children of `salamander serve`).
void DieWithParent();

}  // namespace salamander::service

#endif  // SALAMANDER_COMMON_SERVICE_PROCESS_H_
