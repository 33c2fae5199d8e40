#include "decode_worker/request_state.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace salamander::decode {
namespace {

using enum RequestState;
using enum RequestEvent;

TEST(RequestStateTest, Table) {
  const std::map<std::pair<RequestState, RequestEvent>, RequestState> table = {
      {{kReserved, kClaimed}, kReceiving}, {{kReserved, kReleased}, kClosing}, {{kReceiving, kReady}, kWaiting},
      {{kReceiving, kReleased}, kClosing}, {{kWaiting, kJoined}, kDecoding},   {{kWaiting, kReleased}, kClosing},
      {{kDecoding, kReleased}, kClosing},  {{kClosing, kDrained}, kClosed},
  };
  for (RequestState state : {kReserved, kReceiving, kWaiting, kDecoding, kClosing, kClosed}) {
    for (RequestEvent event : {kClaimed, kReady, kJoined, kReleased, kDrained}) {
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
}  // namespace salamander::decode
