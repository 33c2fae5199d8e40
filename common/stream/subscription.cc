#include <algorithm>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "common/base/log.h"
#include "common/stream/receiver.h"
#include "common/stream/subscription_core.h"

namespace salamander::stream {
namespace {

// A message about many lost items names this many.
constexpr size_t kNamedItems = 8;

std::string Names(const std::vector<ItemId>& ids) {
  std::string names;
  for (size_t i = 0; i < std::min(ids.size(), kNamedItems); ++i) {
    absl::StrAppend(&names, i == 0 ? "" : "; ", ItemName(ids[i]));
  }
  if (ids.size() > kNamedItems) absl::StrAppend(&names, "; and ", ids.size() - kNamedItems, " more");
  return names;
}

}  // namespace

std::string Subscription::Core::Named(std::string_view what) const {
  return absl::StrCat("request ", IdToString(request), ": ", std::string(what));
}

void Subscription::Core::Fail(absl::Status status) {
  Gate::Pass pass(gate);
  if (!pass) return;
  {
    std::lock_guard lock(mutex);
    if (!failure.ok()) return;
    failure = status;
  }
  Log(LogLevel::kWarning, Named(status.ToString()));
  if (on_change) on_change();
}

bool Subscription::Core::failed() const {
  std::lock_guard lock(mutex);
  return !failure.ok();
}

void Subscription::Core::Expire(int32_t span) {
  Gate::Pass pass(gate);
  if (!pass || failed()) return;
  const std::vector<ItemId> lost = table.In(ItemState::kMissing, span);
  if (lost.empty()) {
    if (!table.In(ItemState::kReceiving, span).empty()) host->ExpireLater(shared_from_this(), span);
    return;
  }
  stats->lost_items += lost.size();
  Fail(absl::DataLossError(absl::StrCat(Names(lost), ": never arrived, although span ", span, " was finished")));
}

Subscription::Subscription(std::shared_ptr<Core> core) : core_(std::move(core)) {}

Subscription::~Subscription() {
  core_->gate.Close();
  core_->host->Forget(core_.get());
}

uint64_t Subscription::epoch() const { return core_->epoch; }

const std::string& Subscription::secret() const { return core_->secret; }

bool Subscription::Has(const ItemId& id) const {
  const std::optional<size_t> index = core_->table.Find(id);
  return index && core_->table.state(*index) == ItemState::kVerified;
}

bool Subscription::complete() const { return core_->table.verified() == static_cast<int64_t>(core_->table.size()); }

int64_t Subscription::received_items() const { return core_->table.verified(); }

absl::Status Subscription::status() const {
  std::lock_guard lock(core_->mutex);
  return core_->failure;
}

std::vector<ItemId> Subscription::Missing() const {
  std::vector<ItemId> missing = core_->table.In(ItemState::kMissing);
  const std::vector<ItemId> receiving = core_->table.In(ItemState::kReceiving);
  missing.insert(missing.end(), receiving.begin(), receiving.end());
  std::sort(missing.begin(), missing.end());
  return missing;
}

void Subscription::SpanFinished(int32_t span) { core_->host->ExpireLater(core_, span); }

}  // namespace salamander::stream
