// A decode worker, as its program, against whoever reaches its transport's port: items without the reservation's
// secret, with another's, and of a reservation that has ended.
#include <gmock/gmock.h>
#include <grpcpp/client_context.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>
#include <memory>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/base/clock.h"
#include "common/service/channel.h"
#include "common/stream/codec.h"
#include "common/stream/item.h"
#include "common/transport/ucx_transport.h"
#include "tests/common/service/fake_cluster.h"
#include "tests/common/service/raw_client.h"
#include "tests/testing/child_process.h"
#include "tests/testing/golden.h"
#include "tests/testing/temp_folder.h"

namespace salamander {
namespace {

using testing::ChildProcess;
using testing::FakeCluster;
using testing::Golden;
using ::testing::HasSubstr;

class ForgedItemsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    worker_ = ChildProcess::Start("salamander-decode-worker",
                                  {absl::StrCat("--model=", golden_.folder), "--name=d0", "--ucx_net_devices=lo",
                                   absl::StrCat("--routers=", router_.address()), "--memory_bytes=268435456"},
                                  log_)
                  .value();
    const std::string line = worker_->ReadLine(30).value();
    metrics_ = line.substr(line.find("metrics=") + 8);
    ASSERT_TRUE(router_.WaitFor([this](const FakeCluster::Seen& seen) {
      if (!seen.hellos.empty()) hello_ = seen.hellos[0];
      return !seen.hellos.empty();
    }));
    stub_ = v1::DecodeWorker::NewStub(service::MakeChannel(hello_.grpc_address()));
    transport_ = transport::CreateUcxTransport({.net_devices = "lo"}).value();
    transport_->SetHandler(
        [](std::string_view, std::unique_ptr<transport::IncomingMessage> message) { message->Refuse(); });
    link_ = transport_->Connect(hello_.transport_address()).value();
  }

  v1::ReserveResponse Reserve(uint64_t request) {
    v1::ReserveRequest reserve;
    reserve.set_request_id(request);
    v1::Plan& plan = *reserve.mutable_plan();
    plan.set_prompt_tokens(128);
    plan.set_codec(v1::CODEC_RAW);
    plan.add_spans()->set_end(128);
    plan.add_prefill_workers()->set_instance_id(1);
    plan.mutable_decode_worker()->set_instance_id(hello_.instance_id());
    reserve.set_total_tokens(160);
    reserve.set_lease_seconds(60);
    v1::ReserveResponse response;
    grpc::ClientContext context;
    const grpc::Status status = stub_->Reserve(&context, reserve, &response);
    EXPECT_TRUE(status.ok()) << status.error_message();
    return response;
  }

  // Everything but the secret is right.
  v1::ItemHeader HiddenRow(uint64_t request, const v1::ReserveResponse& reservation, const std::string& secret) const {
    v1::ItemHeader header;
    header.set_request_id(request);
    header.set_receiver_instance(hello_.instance_id());
    header.set_epoch(reservation.epoch());
    header.set_secret(secret);
    header.set_kind(v1::ITEM_KIND_HIDDEN);
    header.set_codec(v1::CODEC_RAW);
    header.set_raw_bytes(row_.size());
    header.set_encoded_bytes(row_.size());
    header.set_checksum(stream::Checksum(row_));
    return header;
  }

  void Send(const v1::ItemHeader& header) {
    std::promise<absl::Status> sent;
    link_->Send(header.SerializeAsString(), row_, [&sent](absl::Status status) { sent.set_value(std::move(status)); });
    EXPECT_EQ(sent.get_future().get(), absl::OkStatus());
  }

  double Metric(const std::string& sample) {
    return testing::MetricValue(testing::HttpGet(metrics_, "/metrics").value(), sample).value_or(-1);
  }
  // Waits, since a sender may hear of the end before the receiver has counted it.
  void ExpectMetric(const std::string& sample, double value) {
    const double deadline = RealClock().Now() + 10;
    while (Metric(sample) != value && RealClock().Now() < deadline) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
    EXPECT_EQ(Metric(sample), value) << sample;
  }
  void ExpectRefused(const std::string& reason, double count) {
    ExpectMetric(absl::StrCat("salamander_decode_stream_refused_total{reason=\"", reason, "\"}"), count);
  }
  void ExpectReceived(double count) {
    ExpectMetric("salamander_decode_stream_items_total{codec=\"raw\",direction=\"received\"}", count);
  }
  std::string Log() const {
    std::ostringstream text;
    text << std::ifstream(log_).rdbuf();
    return text.str();
  }

  const Golden golden_{"dense"};
  const testing::TempFolder folder_;
  const std::string log_ = folder_.path() + "/decode.log";
  FakeCluster router_{{}};
  std::unique_ptr<ChildProcess> worker_;
  std::string metrics_;
  v1::WorkerHello hello_;
  std::unique_ptr<v1::DecodeWorker::Stub> stub_;
  std::unique_ptr<transport::Transport> transport_;
  std::unique_ptr<transport::Connection> link_;
  const std::vector<std::byte> row_ = std::vector<std::byte>(128 * sizeof(float), std::byte{0x11});
};

TEST_F(ForgedItemsTest, AreRefusedCountedAndNamed) {
  const v1::ReserveResponse one = Reserve(0xA1), two = Reserve(0xA2);
  ASSERT_EQ(one.secret().size(), stream::kStreamSecretBytes);
  ASSERT_NE(one.secret(), two.secret());

  Send(HiddenRow(0xA1, one, ""));
  Send(HiddenRow(0xA1, one, std::string(stream::kStreamSecretBytes, '\0')));
  ExpectRefused("secret", 2);
  Send(HiddenRow(0xA1, one, two.secret()));
  ExpectRefused("secret", 3);
  ExpectReceived(0);
  EXPECT_THAT(Log(), HasSubstr("request 00000000000000a1: hidden row of span 0: refused: not the secret of the"));

  // Nothing else was wrong with them.
  const v1::ItemHeader genuine = HiddenRow(0xA1, one, one.secret());
  Send(genuine);
  ExpectReceived(1);

  // Replayed, first while the reservation lives, then after its end.
  Send(genuine);
  ExpectRefused("duplicate", 1);
  v1::ReleaseRequest release;
  release.set_request_id(0xA1);
  release.set_epoch(one.epoch());
  v1::ReleaseResponse released;
  grpc::ClientContext context;
  ASSERT_TRUE(stub_->Release(&context, release, &released).ok());
  ExpectMetric("salamander_decode_requests", 1);
  Send(genuine);
  ExpectRefused("unknown", 1);
  ExpectReceived(1);
  EXPECT_THAT(Log(), HasSubstr("request 00000000000000a1: hidden row of span 0: refused: no such reservation here"));
}

}  // namespace
}  // namespace salamander
