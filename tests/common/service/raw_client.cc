#include "tests/common/service/raw_client.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"

namespace salamander::testing {

absl::StatusOr<RawClient> RawClient::Connect(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  sockaddr_in peer{};
  peer.sin_family = AF_INET;
  if (colon == std::string::npos || !absl::SimpleAtoi(address.substr(colon + 1), &port) ||
      inet_pton(AF_INET, address.substr(0, colon).c_str(), &peer.sin_addr) != 1) {
    return absl::InvalidArgumentError(absl::StrCat("not an IPv4 host:port: ", address));
  }
  peer.sin_port = htons(static_cast<uint16_t>(port));
  const int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0 || connect(fd, reinterpret_cast<const sockaddr*>(&peer), sizeof(peer)) != 0) {
    const int error = errno;
    if (fd >= 0) close(fd);
    return absl::UnavailableError(absl::StrCat("connect to ", address, ": ", strerror(error)));
  }
  return RawClient(fd);
}

RawClient::~RawClient() {
  if (fd_ >= 0) close(fd_);
}

bool RawClient::Send(std::string_view bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (sent <= 0) return false;
    bytes.remove_prefix(static_cast<size_t>(sent));
  }
  return true;
}

std::string RawClient::ReadAll(double seconds) {
  std::string result;
  char buffer[4096];
  pollfd wait{fd_, POLLIN, 0};
  while (poll(&wait, 1, static_cast<int>(seconds * 1000)) > 0) {
    const ssize_t received = recv(fd_, buffer, sizeof(buffer), 0);
    if (received <= 0) break;
    result.append(buffer, static_cast<size_t>(received));
  }
  return result;
}

void RawClient::Reset() {
  const linger abort{1, 0};
  setsockopt(fd_, SOL_SOCKET, SO_LINGER, &abort, sizeof(abort));
  close(fd_);
  fd_ = -1;
}

absl::StatusOr<std::string> HttpGet(const std::string& address, const std::string& path) {
  absl::StatusOr<RawClient> client = RawClient::Connect(address);
  if (!client.ok()) return client.status();
  if (!client->Send(absl::StrCat("GET ", path, " HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n"))) {
    return absl::UnavailableError(absl::StrCat(address, " closed the connection"));
  }
  return client->ReadAll(20);
}

absl::StatusOr<double> MetricValue(std::string_view scrape, std::string_view sample) {
  const std::string line = absl::StrCat("\n", std::string(sample), " ");
  const size_t at = scrape.find(line);
  if (at == std::string_view::npos) return absl::NotFoundError(absl::StrCat("no sample ", std::string(sample)));
  const size_t begin = at + line.size();
  double value = 0;
  if (!absl::SimpleAtod(std::string(scrape.substr(begin, scrape.find('\n', begin) - begin)), &value)) {
    return absl::DataLossError(absl::StrCat("unreadable value of ", std::string(sample)));
  }
  return value;
}

int OpenFileDescriptors(const std::string& pid) {
  int count = 0;
  std::error_code error;
  for (auto it = std::filesystem::directory_iterator("/proc/" + pid + "/fd", error);
       !error && it != std::filesystem::directory_iterator(); it.increment(error)) {
    ++count;
  }
  return count;
}

}  // namespace salamander::testing
