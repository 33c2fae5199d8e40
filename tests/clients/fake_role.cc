// Stands in for salamander-router and the workers in tests of `serve`: serves nothing but GetStatus, writes down what
// happens to it in the file $FAKE_LOG, and misbehaves as told by the environment:
//   FAKE_DIES=NAME         exits with status 3 and some last words instead of serving
//   FAKE_DEAF=NAME         does not end on SIGTERM
//   FAKE_WORKERS="2 1"     prefill and decode workers that the router reports
//   FAKE_NOT_READY=N       the router's first N answers say that it is not ready
#include <signal.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

#include "tests/clients/fake_router.h"

namespace salamander::testing {
namespace {

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

void WriteDown(const std::string& line) {
  if (const std::string path = Variable("FAKE_LOG"); !path.empty()) {
    std::ofstream(path, std::ios::app) << line + "\n" << std::flush;
  }
}

v1::GetStatusResponse ReportedStatus() {
  v1::GetStatusResponse status;
  status.set_ready(true);
  int prefill = 0, decode = 0;
  std::istringstream(Variable("FAKE_WORKERS")) >> prefill >> decode;
  for (int i = 0; i < prefill + decode; ++i) {
    v1::WorkerStatus* worker = status.add_workers();
    worker->set_role(i < prefill ? v1::WORKER_ROLE_PREFILL : v1::WORKER_ROLE_DECODE);
    worker->mutable_last()->set_ready(true);
    // Prefill workers have met all others.
    for (int peer = 0; i < prefill && peer + 1 < prefill + decode; ++peer) {
      worker->mutable_last()->add_links()->set_connected(true);
    }
  }
  return status;
}

// Says it is not ready the first few times.
class LateRouter final : public FakeRouter {
 public:
  grpc::Status GetStatus(grpc::ServerContext* context, const v1::GetStatusRequest* request,
                         v1::GetStatusResponse* response) override {
    const grpc::Status answered = FakeRouter::GetStatus(context, request, response);
    if (not_ready_-- > 0) response->set_ready(false);
    WriteDown(response->ready() ? "router: said ready" : "router: said not ready");
    return answered;
  }

 private:
  std::atomic<int> not_ready_ = std::atoi(Variable("FAKE_NOT_READY").c_str());
};

int Serve(const std::string& name) {
  if (Variable("FAKE_DIES") == name) {
    std::fprintf(stderr, "error: %s has no heart\n", name.c_str());
    return 3;
  }
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGTERM);
  sigprocmask(SIG_BLOCK, &stop, nullptr);
  std::unique_ptr<LateRouter> router;
  if (name == "router") {
    router = std::make_unique<LateRouter>();
    router->set_status(ReportedStatus());
  }
  std::printf("serving grpc=%s metrics=127.0.0.1:1\n", router ? router->address().c_str() : "127.0.0.1:2");
  std::fflush(stdout);
  int signal_number = 0;
  do {
    sigwait(&stop, &signal_number);
    WriteDown(name + ": told to stop");
  } while (Variable("FAKE_DEAF") == name);
  return 0;
}

// NAME of --name=NAME; the router has none.
std::string NameOf(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    if (std::string(argv[i]).rfind("--name=", 0) == 0) return argv[i] + sizeof("--name=") - 1;
  }
  return "router";
}

}  // namespace
}  // namespace salamander::testing

int main(int argc, char** argv) { return salamander::testing::Serve(salamander::testing::NameOf(argc, argv)); }
