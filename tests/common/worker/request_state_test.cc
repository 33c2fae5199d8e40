#include "common/worker/request_state.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>
#include <vector>

namespace salamander::worker {
namespace {

using enum RequestState;
using enum RequestEvent;

using Table = std::map<std::pair<RequestState, RequestEvent>, RequestState>;

// Every event in each of the role's states.
void ExpectTable(v1::WorkerRole role, const std::vector<RequestState>& states, const Table& table) {
  for (RequestState state : states) {
    for (RequestEvent event : {kClaimed, kAllSent, kReady, kJoined, kReleased, kDrained}) {
      const auto expected = table.find({state, event});
      const std::optional<RequestState> next = NextState(role, state, event);
      ASSERT_EQ(next.has_value(), expected != table.end())
          << RequestStateName(state) << ", event " << static_cast<int>(event);
      if (next.has_value()) {
        EXPECT_EQ(*next, expected->second) << RequestStateName(state);
      }
    }
  }
}

TEST(RequestStateTest, Prefill) {
  ExpectTable(v1::WORKER_ROLE_PREFILL, {kReserved, kRunning, kDone, kClosing, kClosed},
              {
                  {{kReserved, kClaimed}, kRunning},
                  {{kReserved, kReleased}, kClosing},
                  {{kRunning, kAllSent}, kDone},
                  {{kRunning, kReleased}, kClosing},
                  {{kDone, kReleased}, kClosing},
                  {{kClosing, kDrained}, kClosed},
              });
}

TEST(RequestStateTest, Decode) {
  ExpectTable(v1::WORKER_ROLE_DECODE, {kReserved, kReceiving, kWaiting, kDecoding, kClosing, kClosed},
              {
                  {{kReserved, kClaimed}, kReceiving},
                  {{kReserved, kReleased}, kClosing},
                  {{kReceiving, kReady}, kWaiting},
                  {{kReceiving, kReleased}, kClosing},
                  {{kWaiting, kJoined}, kDecoding},
                  {{kWaiting, kReleased}, kClosing},
                  {{kDecoding, kReleased}, kClosing},
                  {{kClosing, kDrained}, kClosed},
              });
}

}  // namespace
}  // namespace salamander::worker
