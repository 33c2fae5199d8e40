// Philox4x32-10: a counter-based random function (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", SC'11).
#ifndef SALAMANDER_COMMON_ENGINE_PHILOX_H_
#define SALAMANDER_COMMON_ENGINE_PHILOX_H_

#include <array>
#include <cstdint>

namespace salamander::engine {

// 128 random bits of a 128-bit counter and a 64-bit key.
constexpr std::array<uint32_t, 4> Philox4x32(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * counter[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b),
               static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1], static_cast<uint32_t>(a)};
    key = {key[0] + 0x9E3779B9, key[1] + 0xBB67AE85};
  }
  return counter;
}

// Uniform in [0, 2^53), of (seed, position).
constexpr uint64_t RandomAt(uint64_t seed, uint64_t position) {
  const std::array<uint32_t, 4> bits =
      Philox4x32({static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0},
                 {static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)});
  return (uint64_t{bits[0]} << 32 | bits[1]) >> 11;
}

}  // namespace salamander::engine

#endif  // SALAMANDER_COMMON_ENGINE_PHILOX_H_
