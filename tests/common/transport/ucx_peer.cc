// A process at the other end, for tests that kill it.
//
//   ucx_peer TRANSPORTS sink            receives everything, answers each with a small message to nobody
//   ucx_peer TRANSPORTS hold            leaves every message unanswered
//   ucx_peer TRANSPORTS send BYTES      reads a line with an address (hexadecimal) and sends to it without end
//
// Prints its own address (hexadecimal) as one line, then runs until its standard input ends.
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "common/transport/ucx_transport.h"
#include "tests/common/transport/transport_test_util.h"

namespace salamander::transport::testing {
namespace {

int Run(const std::string& transports, const std::string& role, size_t bytes) {
  auto created = CreateUcxTransport({.transports = transports, .net_devices = "lo"});
  if (!created.ok()) return 1;
  Transport& transport = **created;
  Mailbox<Announced> held;
  if (role == "hold") {
    transport.SetHandler(KeepIn(held));
  } else {
    transport.SetHandler([](std::string_view, std::unique_ptr<IncomingMessage> message) {
      auto memory = std::make_shared<std::vector<std::byte>>(message->payload_bytes());
      message->Receive(absl::MakeSpan(*memory), [memory](const absl::Status&) {});
    });
  }
  std::cout << absl::BytesToHexString(transport.address()) << std::endl;
  std::unique_ptr<Connection> connection;
  const std::vector<std::byte> payload(bytes, std::byte{0x33});
  std::function<void(absl::Status)> again;
  std::string line;
  while (std::getline(std::cin, line)) {
    if (role != "send" || connection != nullptr) continue;
    auto connected = transport.Connect(absl::HexStringToBytes(line));
    if (!connected.ok()) return 1;
    connection = *std::move(connected);
    again = [&](const absl::Status& status) {
      if (status.ok()) connection->Send("endless", payload, again);
    };
    for (int i = 0; i < 4; ++i) connection->Send("endless", payload, again);
  }
  return 0;
}

}  // namespace
}  // namespace salamander::transport::testing

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  return salamander::transport::testing::Run(argv[1], argv[2], argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 0);
}
