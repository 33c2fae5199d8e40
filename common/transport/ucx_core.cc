#include "common/transport/ucx_core.h"

#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/status_macros.h"
#include "common/base/thread_pool.h"
#include "common/transport/ucx_address.h"
#include "common/transport/ucx_message.h"

namespace salamander::transport {
namespace {

// The core whose progress thread this is.
thread_local const UcxCore* t_core = nullptr;

}  // namespace

absl::StatusOr<std::shared_ptr<UcxCore>> UcxCore::Create(const UcxOptions& options) {
  ASSIGN_OR_RETURN(UcxContext context, CreateUcxContext(options));
  std::shared_ptr<UcxCore> core(new UcxCore(std::move(context)));
  RETURN_IF_ERROR(core->Start());
  return core;
}

UcxCore::~UcxCore() {
  Stop();
  if (wake_event_ >= 0) close(wake_event_);
}

absl::Status UcxCore::Start() {
  wake_event_ = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (wake_event_ < 0) return absl::InternalError(absl::StrCat("eventfd: ", strerror(errno)));
  RETURN_IF_ERROR(CreateWorker(&inbox_, &inbox_event_));
  RETURN_IF_ERROR(CreateWorker(&outbox_, &outbox_event_));

  RETURN_IF_ERROR(SetHandlers());
  ucp_address_t* address = nullptr;
  size_t bytes = 0;
  if (ucs_status_t status = ucp_worker_get_address(inbox_, &address, &bytes); status != UCS_OK) {
    return UcxError("UCX worker address", status);
  }
  address_ = PackUcxAddress(std::string_view(reinterpret_cast<const char*>(address), bytes));
  ucp_worker_release_address(inbox_, address);

  thread_ = std::thread([this] { Run(); });
  return absl::OkStatus();
}

absl::Status UcxCore::SetHandlers() {
  ucp_am_handler_param_t handler{};
  handler.field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                       UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG;
  handler.flags = UCP_AM_FLAG_WHOLE_MSG;
  handler.arg = this;
  for (const auto& [id, callback] : {std::pair(kUcxMessageId, &OnMessage), std::pair(kUcxGoodbyeId, &OnGoodbye)}) {
    handler.id = id;
    handler.cb = callback;
    if (ucs_status_t status = ucp_worker_set_am_recv_handler(inbox_, &handler); status != UCS_OK) {
      return UcxError("UCX active message handler", status);
    }
  }
  return absl::OkStatus();
}

absl::Status UcxCore::CreateWorker(ucp_worker_h* worker, int* event) {
  ucp_worker_params_t params{};
  params.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE | UCP_WORKER_PARAM_FIELD_FLAGS;
  params.thread_mode = UCS_THREAD_MODE_SERIALIZED;  // Made and destroyed by another thread than works with it.
  params.flags = UCP_WORKER_FLAG_IGNORE_REQUEST_LEAK;
  if (ucs_status_t status = ucp_worker_create(context_.get(), &params, worker); status != UCS_OK) {
    return UcxError("UCX worker", status);
  }
  if (ucs_status_t status = ucp_worker_get_efd(*worker, event); status != UCS_OK) {
    return UcxError("UCX worker's event file descriptor", status);
  }
  ucp_worker_attr_t attributes{};
  attributes.field_mask = UCP_WORKER_ATTR_FIELD_MAX_AM_HEADER;
  if (ucs_status_t status = ucp_worker_query(*worker, &attributes); status != UCS_OK) {
    return UcxError("UCX worker's attributes", status);
  }
  if (attributes.max_am_header < kMaxHeaderBytes) {
    return absl::UnimplementedError(absl::StrCat("UCX carries headers of ", attributes.max_am_header,
                                                 " bytes at most over these transports, need ", kMaxHeaderBytes));
  }
  return absl::OkStatus();
}

void UcxCore::Stop() {
  decltype(tasks_) dropped;
  decltype(delayed_) delayed;
  {
    std::lock_guard lock(mutex_);
    if (std::exchange(stopping_, true)) return;
    dropped.swap(tasks_);
    delayed.swap(delayed_);
  }
  if (thread_.joinable()) {
    eventfd_write(wake_event_, 1);
    thread_.join();
  }
  for (const auto& [id, announced] : announced_) ucp_am_data_release(inbox_, announced.descriptor);
  announced_.clear();
  if (outbox_ != nullptr) ucp_worker_destroy(outbox_);
  if (inbox_ != nullptr) ucp_worker_destroy(inbox_);
  inbox_ = outbox_ = nullptr;
  receives_.clear();  // Nobody writes into their memory any more.
}

bool UcxCore::Post(std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return false;
    tasks_.push_back(std::move(task));
  }
  // The progress thread looks for tasks before it sleeps; only others must wake it.
  if (t_core != this) eventfd_write(wake_event_, 1);
  return true;
}

void UcxCore::PostAfter(std::chrono::milliseconds delay, std::function<void()> task) {
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
    delayed_.emplace(std::chrono::steady_clock::now() + delay, std::move(task));
  }
  if (t_core != this) eventfd_write(wake_event_, 1);
}

void UcxCore::SetHandler(MessageHandler handler) {
  std::lock_guard lock(mutex_);
  handler_ = std::make_shared<const MessageHandler>(std::move(handler));
}

void UcxCore::Run() {
  SetThreadName("ucx_progress");
  t_core = this;
  while (true) {
    WorkUntilIdle();
    {
      std::lock_guard lock(mutex_);
      if (stopping_) return;
    }
    Sleep();
  }
}

void UcxCore::WorkUntilIdle() {
  bool worked = true;
  while (worked) {
    worked = RunTasks();
    if (ucp_worker_progress(inbox_) > 0) worked = true;
    if (ucp_worker_progress(outbox_) > 0) worked = true;
  }
}

bool UcxCore::RunTasks() {
  std::vector<std::function<void()>> tasks;
  {
    std::lock_guard lock(mutex_);
    tasks.swap(tasks_);
    const auto now = std::chrono::steady_clock::now();
    while (!delayed_.empty() && delayed_.begin()->first <= now) {
      tasks.push_back(std::move(delayed_.begin()->second));
      delayed_.erase(delayed_.begin());
    }
  }
  for (std::function<void()>& task : tasks) task();
  return !tasks.empty();
}

int UcxCore::MillisecondsToSleep() {
  std::lock_guard lock(mutex_);
  if (delayed_.empty()) return -1;
  const auto left = delayed_.begin()->first - std::chrono::steady_clock::now();
  // Up, so that it is due on waking.
  return std::max<int>(0, std::chrono::ceil<std::chrono::milliseconds>(left).count());
}

// A worker that has something to do refuses to be armed; one that gets something to do after it was armed makes its
// event readable. A task posted since RunTasks has made ours readable.
void UcxCore::Sleep() {
  if (ucp_worker_arm(inbox_) != UCS_OK || ucp_worker_arm(outbox_) != UCS_OK) return;
  pollfd events[] = {{inbox_event_, POLLIN, 0}, {outbox_event_, POLLIN, 0}, {wake_event_, POLLIN, 0}};
  poll(events, 3, MillisecondsToSleep());  // On EINTR there is just nothing to do.
  eventfd_t ignored;
  if (events[2].revents != 0) eventfd_read(wake_event_, &ignored);
}

ucs_status_t UcxCore::OnMessage(void* self, const void* header, size_t header_bytes, void* data, size_t bytes,
                                const ucp_am_recv_param_t* param) {
  UcxCore& core = *static_cast<UcxCore*>(self);
  std::shared_ptr<const MessageHandler> handler;
  {
    std::lock_guard lock(core.mutex_);
    handler = core.handler_;
  }
  if (handler == nullptr) return UCS_OK;  // Drops the message; a sender that waits is told.
  const std::string_view view(static_cast<const char*>(header), header_bytes);
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) == 0) {
    (*handler)(view, std::make_unique<UcxEagerMessage>(core.shared_from_this(), data, bytes));
    return UCS_OK;
  }
  const bool has_endpoint = (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0;
  const uint64_t id = core.next_announced_++;
  core.announced_[id] = {data, has_endpoint ? param->reply_ep : nullptr};
  (*handler)(view, std::make_unique<UcxAnnouncedMessage>(core.shared_from_this(), id, bytes));
  return UCS_INPROGRESS;  // The descriptor is ours.
}

ucs_status_t UcxCore::OnGoodbye(void* self, const void* /*header*/, size_t /*header_bytes*/, void* /*data*/,
                                size_t /*bytes*/, const ucp_am_recv_param_t* param) {
  if ((param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) == 0) return UCS_OK;
  UcxCore& core = *static_cast<UcxCore*>(self);
  std::erase_if(core.announced_, [&](const auto& entry) {
    const Announced& announced = entry.second;
    if (announced.endpoint != param->reply_ep) return false;
    ucp_am_data_release(core.inbox_, announced.descriptor);
    return true;
  });
  return UCS_OK;
}

void UcxCore::StartReceive(uint64_t id, absl::Span<std::byte> memory, std::function<void(absl::Status)> done) {
  const auto found = announced_.find(id);
  if (found == announced_.end()) return done(absl::UnavailableError("the sender closed the link"));
  void* const descriptor = found->second.descriptor;
  announced_.erase(found);
  Receive& receive = receives_.emplace_back(Receive{this, std::move(done), {}});
  receive.self = std::prev(receives_.end());
  ucp_request_param_t param{};
  param.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA;
  param.cb.recv_am = &UcxCore::OnReceived;
  param.user_data = &receive;
  const ucs_status_ptr_t request = ucp_am_recv_data_nbx(inbox_, descriptor, memory.data(), memory.size(), &param);
  if (!UCS_PTR_IS_PTR(request)) EndReceive(receive, UCS_PTR_RAW_STATUS(request));
}

void UcxCore::OnReceived(void* request, ucs_status_t status, size_t /*bytes*/, void* receive) {
  ucp_request_free(request);
  auto& ended = *static_cast<Receive*>(receive);
  ended.core->EndReceive(ended, status);
}

void UcxCore::EndReceive(Receive& receive, ucs_status_t status) {
  const std::function<void(absl::Status)> done = std::move(receive.done);
  receives_.erase(receive.self);
  {
    std::lock_guard lock(mutex_);
    if (stopping_) return;
  }
  done(status == UCS_OK ? absl::OkStatus() : UcxError("receiving", status));
}

void UcxCore::Release(uint64_t id) {
  const auto found = announced_.find(id);
  if (found == announced_.end()) return;
  void* const descriptor = found->second.descriptor;
  announced_.erase(found);
  ucp_am_data_release(inbox_, descriptor);
}

}  // namespace salamander::transport
