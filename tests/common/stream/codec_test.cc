// Codecs: bit-exact for all bit patterns, the same bytes from every instruction set, safe on any bytes.
#include "common/stream/codec.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "common/stream/lossless.h"
#include "common/stream/tile_kernels.h"

namespace salamander::stream {
namespace {

using ::testing::HasSubstr;

constexpr v1::ElementType kTypes[] = {v1::ELEMENT_TYPE_BFLOAT16, v1::ELEMENT_TYPE_FLOAT32};
size_t Width(v1::ElementType type) { return type == v1::ELEMENT_TYPE_BFLOAT16 ? 2 : 4; }

// How the elements of a test input are drawn.
enum class Kind { kNormal, kAnyBits, kZeros, kWide, kSpecial };
constexpr Kind kKinds[] = {Kind::kNormal, Kind::kAnyBits, Kind::kZeros, Kind::kWide, Kind::kSpecial};

std::vector<std::byte> Input(v1::ElementType type, Kind kind, size_t elements, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  const uint32_t special[] = {0,          0x80000000, 1,          0x80000001, 0x7F800000, 0xFF800000,
                              0x7FC00000, 0x7F800001, 0xFFFFFFFF, 0x00800000, 0x3F800000, 0x007FFFFF};
  std::vector<std::byte> bytes(elements * Width(type));
  for (size_t i = 0; i < elements; ++i) {
    uint32_t bits = 0;
    float value = normal(random);
    if (kind == Kind::kWide) value = std::ldexp(value, static_cast<int>(random() % 40) - 20);
    if (kind == Kind::kNormal || kind == Kind::kWide) std::memcpy(&bits, &value, 4);
    if (kind == Kind::kAnyBits) bits = static_cast<uint32_t>(random());
    // Mostly ordinary, so that the tile is still coded and the special ones go through the escapes.
    if (kind == Kind::kSpecial) bits = random() % 16 == 0 ? special[random() % 12] : 0x3F801234;
    std::memcpy(&bytes[i * Width(type)], reinterpret_cast<const std::byte*>(&bits) + 4 - Width(type), Width(type));
  }
  return bytes;
}

std::vector<std::byte> EncodeWith(const TileKernels& kernels, const ItemShape& shape,
                                  const std::vector<std::byte>& raw) {
  const absl::Span<const std::byte> run(raw);
  // Exactly the promised room, so that a sanitizer sees a byte too many.
  std::vector<std::byte> encoded(MaxLosslessBytes(shape, raw.size()));
  const auto bytes = EncodeLossless(kernels, shape, absl::MakeConstSpan(&run, 1), absl::MakeSpan(encoded));
  EXPECT_TRUE(bytes.ok()) << bytes.status();
  encoded.resize(*bytes);
  encoded.shrink_to_fit();
  return encoded;
}

absl::Status DecodeWith(const TileKernels& kernels, const ItemShape& shape, const std::vector<std::byte>& encoded,
                        std::vector<std::byte>& raw) {
  const absl::Span<std::byte> run = absl::MakeSpan(raw);
  return DecodeLossless(kernels, shape, encoded, absl::MakeConstSpan(&run, 1));
}

TEST(Lossless, BitExactWithTheSameBytesFromEveryInstructionSet) {
  for (v1::ElementType type : kTypes) {
    for (Kind kind : kKinds) {
      for (size_t elements : {0, 1, 2, 3, 5, 63, 64, 127, 128, 129, 255, 256, 383, 1000, 8192, 8193, 20000}) {
        const ItemShape shape{type, static_cast<int64_t>(8192 * Width(type))};
        const std::vector<std::byte> raw = Input(type, kind, elements, elements + 1);
        const std::vector<std::byte> expected = EncodeWith(PortableTileKernels(), shape, raw);
        for (const TileKernels* kernels : UsableTileKernels()) {
          EXPECT_TRUE(EncodeWith(*kernels, shape, raw) == expected)
              << kernels->name << " kind " << static_cast<int>(kind) << " elements " << elements;
          std::vector<std::byte> decoded(raw.size(), std::byte{0xEE});
          const absl::Status status = DecodeWith(*kernels, shape, expected, decoded);
          EXPECT_TRUE(status.ok()) << status << kernels->name;
          EXPECT_TRUE(decoded == raw) << kernels->name << " kind " << static_cast<int>(kind) << " elements "
                                      << elements;
        }
      }
    }
  }
}

TEST(Lossless, CoversEveryBfloat16) {
  std::vector<std::byte> raw(65536 * 2);
  for (uint32_t i = 0; i < 65536; ++i) std::memcpy(&raw[i * 2], &i, 2);
  // Exponents rise through the tiles of 256, so both coded and raw tiles appear.
  const ItemShape shape{v1::ELEMENT_TYPE_BFLOAT16, 512};
  for (const TileKernels* kernels : UsableTileKernels()) {
    std::vector<std::byte> decoded(raw.size());
    ASSERT_TRUE(DecodeWith(*kernels, shape, EncodeWith(*kernels, shape, raw), decoded).ok());
    EXPECT_TRUE(decoded == raw) << kernels->name;
  }
}

TEST(Lossless, ShrinksNormalNumbersAndHardlyGrowsOthers) {
  const ItemShape shape{v1::ELEMENT_TYPE_BFLOAT16, 16384};
  const std::vector<std::byte> normal = Input(v1::ELEMENT_TYPE_BFLOAT16, Kind::kNormal, 1 << 20, 1);
  EXPECT_LT(EncodeWith(PortableTileKernels(), shape, normal).size(), normal.size() * 0.752);
  const std::vector<std::byte> any = Input(v1::ELEMENT_TYPE_BFLOAT16, Kind::kAnyBits, 1 << 20, 1);
  EXPECT_LE(EncodeWith(PortableTileKernels(), shape, any).size(), any.size() * 1.001);
}

TEST(Lossless, RefusesEveryOtherLength) {
  const ItemShape shape{v1::ELEMENT_TYPE_BFLOAT16, 256};
  const std::vector<std::byte> raw = Input(shape.type, Kind::kWide, 300, 1);
  const std::vector<std::byte> encoded = EncodeWith(PortableTileKernels(), shape, raw);
  std::vector<std::byte> decoded(raw.size());
  for (size_t length = 0; length <= encoded.size() + 3; ++length) {
    std::vector<std::byte> bytes = encoded;
    bytes.resize(length);
    EXPECT_EQ(DecodeWith(PortableTileKernels(), shape, bytes, decoded).ok(), length == encoded.size()) << length;
  }
}

TEST(Lossless, AnyBytesAreSafeAndEveryInstructionSetAgreesOnThem) {
  std::mt19937_64 random(11);
  for (int round = 0; round < 4000; ++round) {
    const v1::ElementType type = kTypes[round % 2];
    const ItemShape shape{type, static_cast<int64_t>(256 * Width(type))};
    const size_t elements = random() % 1200;
    std::vector<std::byte> bytes =
        EncodeWith(PortableTileKernels(), shape, Input(type, kKinds[random() % 5], elements, round));
    switch (random() % 4) {
      case 0:
        bytes.resize(random() % (bytes.size() + 1));
        break;
      case 1:
        bytes.resize(bytes.size() + random() % 100);
        break;
      case 2:
        for (std::byte& byte : bytes) byte = static_cast<std::byte>(random());
        break;
      default:
        for (int flips = 1 + random() % 3; flips > 0 && !bytes.empty(); --flips) {
          // Half of them in the table and the first header, where they hurt most.
          const size_t at = random() % std::min<size_t>(bytes.size(), random() % 2 == 0 ? 64 : bytes.size());
          bytes[at] ^= std::byte{1} << (random() % 8);
        }
    }
    bytes.shrink_to_fit();
    std::vector<std::byte> expected(elements * Width(type));
    const absl::Status status = DecodeWith(PortableTileKernels(), shape, bytes, expected);
    EXPECT_TRUE(status.ok() || status.code() == absl::StatusCode::kDataLoss) << status;
    for (const TileKernels* kernels : UsableTileKernels()) {
      std::vector<std::byte> decoded(expected.size());
      EXPECT_EQ(DecodeWith(*kernels, shape, bytes, decoded).ok(), status.ok()) << kernels->name << " round " << round;
      if (!status.ok()) continue;
      EXPECT_TRUE(decoded == expected) << kernels->name << " round " << round;
    }
  }
}

TEST(Codec, RunsMayBeCutAnywhereBetweenTiles) {
  const ItemShape shape{v1::ELEMENT_TYPE_FLOAT32, 1024};
  std::vector<std::byte> raw = Input(shape.type, Kind::kNormal, 256 * 7 + 100, 3);
  for (v1::Codec codec : {v1::CODEC_RAW, v1::CODEC_LOSSLESS}) {
    const absl::Span<const std::byte> all(raw);
    const std::vector<absl::Span<const std::byte>> source{all.subspan(0, 1024), all.subspan(1024, 4096),
                                                          all.subspan(5120)};
    std::vector<std::byte> encoded(MaxEncodedBytes(codec, shape, raw.size()));
    const auto bytes = Encode(codec, shape, source, absl::MakeSpan(encoded));
    ASSERT_TRUE(bytes.ok()) << bytes.status();
    std::vector<std::byte> decoded(raw.size());
    const absl::Span<std::byte> into = absl::MakeSpan(decoded);
    const std::vector<absl::Span<std::byte>> runs{into.subspan(0, 3072), into.subspan(3072)};
    ASSERT_TRUE(Decode(codec, shape, absl::MakeSpan(encoded).subspan(0, *bytes), runs).ok());
    EXPECT_TRUE(decoded == raw);
  }
}

TEST(Codec, RefusesWhatDoesNotFit) {
  std::vector<std::byte> raw(300), room(1000);
  const absl::Span<const std::byte> all(raw);
  const auto encode = [&](v1::Codec codec, const ItemShape& shape, std::vector<absl::Span<const std::byte>> runs,
                          size_t bytes) {
    return Encode(codec, shape, runs, absl::MakeSpan(room).subspan(0, bytes)).status();
  };
  const ItemShape shape{v1::ELEMENT_TYPE_FLOAT32, 64};
  EXPECT_TRUE(encode(v1::CODEC_LOSSLESS, shape, {all}, 1000).ok());
  EXPECT_EQ(encode(v1::CODEC_UNSPECIFIED, shape, {all}, 1000).code(), absl::StatusCode::kUnimplemented);
  EXPECT_EQ(encode(v1::CODEC_LOSSLESS, shape, {all}, 300).message(), "room for 300 bytes, need 380");
  EXPECT_EQ(encode(v1::CODEC_RAW, shape, {all}, 299).message(), "room for 299 bytes, need 300");
  EXPECT_EQ(encode(v1::CODEC_LOSSLESS, shape, {all.subspan(0, 100), all.subspan(100)}, 1000).message(),
            "run 0 must be a multiple of 64 bytes, got 100");
  EXPECT_EQ(encode(v1::CODEC_LOSSLESS, shape, {all.subspan(1)}, 1000).message(),
            "run 0 must be a multiple of 4 bytes, got 299");
  EXPECT_THAT(encode(v1::CODEC_LOSSLESS, {v1::ELEMENT_TYPE_FLOAT32, 6}, {all}, 1000).message(), HasSubstr("got 6"));
  EXPECT_EQ(encode(v1::CODEC_LOSSLESS, {v1::ELEMENT_TYPE_UNSPECIFIED, 64}, {all}, 1000).code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace salamander::stream
