#include "common/model/safetensors.h"

#include <gmock/gmock.h>

#include <cstring>
#include <random>

#include "tests/testing/paths.h"
#include "tests/testing/temp_folder.h"

namespace salamander::model {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file of this header, padded as the format wants it, and as many bytes of data.
std::string File(std::string header, size_t data_bytes) {
  header.append((8 - header.size() % 8) % 8, ' ');
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, 'd');
}

absl::Status OpenBytes(const std::string& content) {
  const testing::TempFolder folder;
  return SafetensorsFile::Open(folder.Write("bytes", content)).status();
}

// Reads every byte that a view promises, so that a wrong one crashes here.
uint64_t Touch(const SafetensorsFile& file) {
  uint64_t sum = 0;
  for (const auto& [name, view] : file.tensors()) {
    for (int64_t i = 0; i < view.bytes; ++i) sum += static_cast<uint64_t>(view.data[i]);
  }
  return sum;
}

TEST(SafetensorsTest, WhatIsWrittenIsRead) {
  const float floats[6] = {1, -2, 3.5, 0, 5, 6};
  const uint16_t halves[3] = {0x3F80, 0x4000, 0xBF80};
  std::map<std::string, TensorView> tensors;
  tensors["a"] = {TensorType::kF32, {2, 3}, reinterpret_cast<const std::byte*>(floats), sizeof(floats)};
  tensors["b.\"quoted\""] = {TensorType::kBF16, {3}, reinterpret_cast<const std::byte*>(halves), sizeof(halves)};
  tensors["empty"] = {TensorType::kI32, {0, 4}, nullptr, 0};
  const testing::TempFolder folder;
  const std::string path = folder.file("file");
  ASSERT_TRUE(WriteSafetensors(path, tensors).ok());

  const auto file = SafetensorsFile::Open(path);
  ASSERT_TRUE(file.ok()) << file.status();
  ASSERT_EQ((*file)->tensors().size(), 3u);
  const TensorView& a = (*file)->tensors().at("a");
  EXPECT_THAT(a.shape, ElementsAre(2, 3));
  EXPECT_EQ(a.elements(), 6);
  EXPECT_EQ(std::memcmp(a.data, floats, sizeof(floats)), 0);
  const TensorView& b = (*file)->tensors().at("b.\"quoted\"");
  EXPECT_EQ(b.type, TensorType::kBF16);
  EXPECT_EQ(std::memcmp(b.data, halves, sizeof(halves)), 0);
}

TEST(SafetensorsTest, ReadsTheOraclesFiles) {
  const auto file = SafetensorsFile::Open(testing::TestData("golden/sparse/golden.safetensors"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_THAT((*file)->tensors().at("prompt").shape, ElementsAre(1500));
  EXPECT_EQ((*file)->tensors().at("prompt").type, TensorType::kI32);
  EXPECT_THAT((*file)->tensors().at("state.1").shape, ElementsAre(4, 32, 32));
}

TEST(SafetensorsTest, MissingFileIsNotFoundAndUnwritablePathFails) {
  const auto status = SafetensorsFile::Open("/nonexistent/model.safetensors").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(status.message()), HasSubstr("/nonexistent/model.safetensors"));
  EXPECT_FALSE(WriteSafetensors("/nonexistent/model.safetensors", {}).ok());
  EXPECT_FALSE(SafetensorsFile::Open("/").ok());
}

struct Fault {
  const char* header;
  size_t data_bytes;
  const char* says;
};

class SafetensorsFaultTest : public ::testing::TestWithParam<Fault> {};

TEST_P(SafetensorsFaultTest, IsRefusedByName) {
  const absl::Status status = OpenBytes(File(GetParam().header, GetParam().data_bytes));
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(status.message()), HasSubstr(GetParam().says));
}

INSTANTIATE_TEST_SUITE_P(
    All, SafetensorsFaultTest,
    ::testing::Values(
        Fault{"not json", 0, "JSON object"}, Fault{"[1]", 0, "JSON object"},
        Fault{R"({"t":5})", 0, "tensor \"t\": expected an object, found 5"},
        Fault{R"({"t":{"dtype":"F16","shape":[2],"data_offsets":[0,4]}})", 4, "found \"F16\""},
        Fault{R"({"t":{"shape":[1],"data_offsets":[0,4]}})", 4, "\"dtype\""},
        Fault{R"({"t":{"dtype":"F32","data_offsets":[0,4]}})", 4, "\"shape\""},
        Fault{R"({"t":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}})", 4, "found -1"},
        Fault{R"({"t":{"dtype":"F32","shape":[1.5],"data_offsets":[0,4]}})", 4, "found 1.5"},
        Fault{R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0]}})", 4, "two numbers"},
        Fault{R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[4,0]}})", 4, "found [4,0]"},
        Fault{R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 3, "within the file's 3 bytes"},
        Fault{R"({"t":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}})", 4, "expected 8 bytes for F32 [2], found 4"},
        Fault{R"({"t":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}})", 0, "more than 2^63"},
        Fault{R"({"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})", 8, "expected 4 bytes of data, found 8"},
        Fault{
            R"({"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[2,4]}})",
            4, "overlap"},
        Fault{
            R"({"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"BF16","shape":[1],"data_offsets":[4,6]}})",
            6, "hole"}));

TEST(SafetensorsTest, RefusesAHeaderThatDoesNotFit) {
  EXPECT_FALSE(OpenBytes("").ok());
  EXPECT_FALSE(OpenBytes("1234567").ok());
  EXPECT_FALSE(OpenBytes(std::string(8, '\xFF')).ok());
  std::string longer = File("{}", 0);
  longer[0] = 9;
  EXPECT_THAT(std::string(OpenBytes(longer).message()), HasSubstr("at most 8 bytes, found 9"));
}

TEST(SafetensorsTest, RefusesBytesThatAreNotAlignedToTheirType) {
  const std::string header =
      R"({"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]},"b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}})";
  EXPECT_THAT(std::string(OpenBytes(File(header, 6)).message()), HasSubstr("tensor \"b\": its bytes begin at 2"));
}

TEST(SafetensorsTest, RefusesHeadersThatNestWithoutEnd) {
  EXPECT_FALSE(OpenBytes(File("{\"t\":" + std::string(2'000'000, '['), 0)).ok());
  EXPECT_FALSE(
      OpenBytes(File("{\"t\":{\"dtype\":" + std::string(200'000, '[') + std::string(200'000, ']') + "}}", 0)).ok());
}

constexpr char kSmallHeader[] =
    R"({"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},)"
    R"("b":{"dtype":"BF16","shape":[4],"data_offsets":[16,24]}})";

TEST(SafetensorsFuzzTest, EveryTruncationIsRefused) {
  const std::string whole = File(kSmallHeader, 24);
  ASSERT_TRUE(OpenBytes(whole).ok()) << OpenBytes(whole);
  const testing::TempFolder folder;
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_FALSE(SafetensorsFile::Open(folder.Write("bytes", whole.substr(0, length))).ok()) << length;
  }
}

// Changed bytes: whatever still opens has views within the file.
TEST(SafetensorsFuzzTest, ChangedBytesNeverLeadOutOfTheFile) {
  const std::string whole = File(kSmallHeader, 24);
  const testing::TempFolder folder;
  std::mt19937 random(1);
  const std::string likely = "0123456789[]{}\",:-e. \\\xFF";
  int opened = 0;
  for (int round = 0; round < 3000; ++round) {
    std::string changed = whole;
    for (uint32_t i = 0, count = 1 + random() % 3; i < count; ++i) {
      const bool any = random() % 4 == 0;
      changed[random() % changed.size()] = any ? static_cast<char>(random()) : likely[random() % likely.size()];
    }
    const auto file = SafetensorsFile::Open(folder.Write("bytes", changed));
    if (!file.ok()) continue;
    ++opened;
    Touch(**file);
  }
  EXPECT_GT(opened, 50);  // else nothing was tested
}

}  // namespace
}  // namespace salamander::model
