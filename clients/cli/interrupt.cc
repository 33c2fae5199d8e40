#include "clients/cli/interrupt.h"

#include <poll.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include <memory>
#include <mutex>
#include <utility>

namespace salamander::cli {

struct Interrupt::Watch {
  int signals = -1;  // signalfd
  int quit = -1;     // eventfd, readable once the object goes away
  sigset_t before;   // the mask to restore
  std::mutex mutex;
  std::function<void()> callback;
};

Interrupt::Interrupt() : watch_(std::make_unique<Watch>()) {
  sigset_t stop;
  sigemptyset(&stop);
  sigaddset(&stop, SIGINT);
  sigaddset(&stop, SIGTERM);
  pthread_sigmask(SIG_BLOCK, &stop, &watch_->before);
  watch_->signals = signalfd(-1, &stop, SFD_CLOEXEC);
  watch_->quit = eventfd(0, EFD_CLOEXEC);
  thread_ = std::thread([this] { Run(); });
}

Interrupt::~Interrupt() {
  eventfd_write(watch_->quit, 1);
  thread_.join();
  close(watch_->signals);
  close(watch_->quit);
  pthread_sigmask(SIG_SETMASK, &watch_->before, nullptr);
}

void Interrupt::OnSignal(std::function<void()> callback) {
  std::lock_guard lock(watch_->mutex);
  if (signal() != 0 && callback) {
    callback();
  } else {
    watch_->callback = std::move(callback);
  }
}

void Interrupt::Run() {
  pollfd ready[2] = {{watch_->signals, POLLIN, 0}, {watch_->quit, POLLIN, 0}};
  while (true) {
    if (poll(ready, 2, -1) < 0) continue;  // EINTR
    if (ready[1].revents != 0) return;
    signalfd_siginfo info;
    if (read(watch_->signals, &info, sizeof(info)) != sizeof(info)) continue;
    if (signal() != 0) _exit(exit_code());  // the user insists
    std::lock_guard lock(watch_->mutex);
    signal_.store(static_cast<int>(info.ssi_signo));
    if (watch_->callback) std::exchange(watch_->callback, nullptr)();
  }
}

}  // namespace salamander::cli
