// In which order prompts are prefilled. Workers go by it, and the router foresees it.
#ifndef SALAMANDER_COMMON_BASE_VIRTUAL_DEADLINE_H_
#define SALAMANDER_COMMON_BASE_VIRTUAL_DEADLINE_H_

#include <cstdint>

namespace salamander {

inline constexpr double kReferenceTokensPerSecond = 4096;

// A prompt's virtual deadline: when it would be done, had it a worker of this rate alone from its arrival on. Among
// equal priorities the earliest goes first: shorter prompts overtake longer ones, but one that has waited has a
// deadline ahead of all that came much later.
inline double VirtualDeadline(double arrival, int64_t prompt_tokens,
                              double tokens_per_second = kReferenceTokensPerSecond) {
  return arrival + static_cast<double>(prompt_tokens) / tokens_per_second;
}

}  // namespace salamander

#endif  // SALAMANDER_COMMON_BASE_VIRTUAL_DEADLINE_H_
