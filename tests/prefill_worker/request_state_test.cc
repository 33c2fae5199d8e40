#include "prefill_worker/request_state.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace salamander::prefill {
namespace {

using enum RequestState;
using enum RequestEvent;

TEST(RequestStateTest, Table) {
  const std::map<std::pair<RequestState, RequestEvent>, RequestState> table = {
      {{kReserved, kClaimed}, kRunning}, {{kReserved, kReleased}, kClosing}, {{kRunning, kAllSent}, kDone},
      {{kRunning, kReleased}, kClosing}, {{kDone, kReleased}, kClosing},     {{kClosing, kDrained}, kClosed},
  };
  for (RequestState state : {kReserved, kRunning, kDone, kClosing, kClosed}) {
    for (RequestEvent event : {kClaimed, kAllSent, kReleased, kDrained}) {
      const auto expected = table.find({state, event});
      const std::optional<RequestState> next = NextState(state, event);
      ASSERT_EQ(next.has_value(), expected != table.end())
          << RequestStateName(state) << ", event " << static_cast<int>(event);
      if (next.has_value()) {
        EXPECT_EQ(*next, expected->second) << RequestStateName(state);
      }
    }
  }
}

}  // namespace
}  // namespace salamander::prefill
