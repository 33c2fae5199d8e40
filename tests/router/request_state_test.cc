#include "router/request_state.h"

#include <gtest/gtest.h>

#include <map>
#include <utility>

namespace salamander::router {
namespace {

using State = RequestState;
using Event = RequestEvent;

TEST(RequestState, TheWholeTable) {
  const std::map<std::pair<State, Event>, State> allowed = {
      {{State::kChecking, Event::kAccepted}, State::kQueued},
      {{State::kQueued, Event::kAdmitted}, State::kReserving},
      {{State::kReserving, Event::kNoMemory}, State::kQueued},
      {{State::kReserving, Event::kReserved}, State::kPrefilling},
      {{State::kPrefilling, Event::kPrefilled}, State::kTransferring},
      {{State::kPrefilling, Event::kReady}, State::kDecoding},
      {{State::kTransferring, Event::kReady}, State::kDecoding},
      {{State::kDecoding, Event::kCompleted}, State::kFinished},
      {{State::kChecking, Event::kFail}, State::kFailed},
      {{State::kQueued, Event::kFail}, State::kFailed},
      {{State::kReserving, Event::kFail}, State::kFailed},
      {{State::kPrefilling, Event::kFail}, State::kFailed},
      {{State::kTransferring, Event::kFail}, State::kFailed},
      {{State::kDecoding, Event::kFail}, State::kFailed},
  };
  for (int s = 0; s < kRequestStates; ++s) {
    for (int e = 0; e < kRequestEvents; ++e) {
      const auto found = allowed.find({static_cast<State>(s), static_cast<Event>(e)});
      const std::optional<State> next = NextState(static_cast<State>(s), static_cast<Event>(e));
      EXPECT_EQ(next.has_value(), found != allowed.end()) << s << " " << e;
      if (next.has_value() && found != allowed.end()) {
        EXPECT_EQ(*next, found->second) << s << " " << e;
      }
    }
  }
}

TEST(RequestState, FinalOnesAreFinishedAndFailed) {
  for (int s = 0; s < kRequestStates; ++s) {
    const auto state = static_cast<State>(s);
    EXPECT_EQ(IsFinal(state), state == State::kFinished || state == State::kFailed);
    EXPECT_FALSE(StateName(state).empty());
  }
}

}  // namespace
}  // namespace salamander::router
