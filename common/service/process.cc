#include "common/service/process.h"

#include <pthread.h>
#include <signal.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <cstdio>

namespace salamander::service {
namespace {

sigset_t StopSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  return signals;
}

}  // namespace

void BlockStopSignals() {
  const sigset_t signals = StopSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal(SIGPIPE, SIG_IGN);
}

int WaitForStopSignal() {
  const sigset_t signals = StopSignals();
  int signal_number = 0;
  while (sigwait(&signals, &signal_number) != 0) {
  }
  return signal_number;
}

void RequestStop() { kill(getpid(), SIGTERM); }

void DieWithParent() { prctl(PR_SET_PDEATHSIG, SIGTERM); }

void PrintAddresses(const std::string& grpc_address, const std::string& metrics_address,
                    const std::string& health_address) {
  std::printf("serving grpc=%s metrics=%s%s%s\n", grpc_address.c_str(), metrics_address.c_str(),
              health_address.empty() ? "" : " health=", health_address.c_str());
  std::fflush(stdout);
}

}  // namespace salamander::service
