#include "common/worker/request_table.h"

namespace salamander::worker {

RequestTableBase::RequestTableBase(Host* host, v1::WorkerRole role, EngineLoop* loop, int64_t budget_bytes)
    : host_(host), role_(role), loop_(loop), budget_bytes_(budget_bytes), memory_(host, loop, budget_bytes) {
  host_->metrics->GaugeFrom(MetricsPrefix(role_) + "requests", "Requests that hold memory.", {},
                            [this] { return static_cast<double>(live_.Read()); });
  host_->metrics->GaugeFrom(MetricsPrefix(role_) + "reserved_bytes", "Memory that requests have reserved.", {},
                            [this] { return static_cast<double>(budget_bytes_ - memory_.free_bytes()); });
  host_->metrics->GaugeFrom(MetricsPrefix(role_) + "reservable_bytes",
                            "Memory that requests may reserve together; what is free beyond it is for transfers.", {},
                            [this] { return static_cast<double>(budget_bytes_); });
  for (const char* outcome : {"ok", "cancelled", "failed", "expired"}) Finished(outcome);
}

void RequestTableBase::StopReserving() {
  loop_->Post([this] { reserving_ = false; });
}

void RequestTableBase::EndAndWait() {
  EndAll(absl::UnavailableError("the worker ends"));
  live_.WaitForZero();
}

absl::Status RequestTableBase::CheckReserve(const v1::ReserveRequest& request) const {
  if (!reserving_) return absl::UnavailableError(absl::StrCat("worker ", host_->name, " is draining"));
  return CheckRequestPlan(request.plan());
}

v1::ReserveResponse RequestTableBase::Granted(const Reservation& reservation) const {
  v1::ReserveResponse response;
  response.set_epoch(reservation.epoch);
  response.set_secret(reservation.secret);
  response.set_instance_id(host_->instance);
  return response;
}

prometheus::Counter& RequestTableBase::Finished(const std::string& outcome) {
  return host_->metrics->Counter(MetricsPrefix(role_) + "requests_total", "Requests by how they ended.",
                                 {{"outcome", outcome}});
}

}  // namespace salamander::worker
