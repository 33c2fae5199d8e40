#include "common/service/tls_diagnosis.h"

#include <arpa/inet.h>
#include <netdb.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

#include <memory>
#include <optional>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "common/service/address.h"
#include "common/service/certificate.h"

namespace salamander::service {
namespace {

// Of each of: connecting, every read and write.
constexpr int kPatienceSeconds = 2;

struct Socket {
  ~Socket() {
    if (fd >= 0) close(fd);
  }
  int fd = -1;
};

void Dial(const std::string& address, Socket& socket) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (getaddrinfo(HostOf(address).c_str(), PortOf(address).c_str(), &hints, &found) != 0) return;
  const std::unique_ptr<addrinfo, void (*)(addrinfo*)> owned(found, freeaddrinfo);
  socket.fd = ::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const timeval patience{.tv_sec = kPatienceSeconds};
  setsockopt(socket.fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));  // connect's too
  setsockopt(socket.fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  if (connect(socket.fd, found->ai_addr, found->ai_addrlen) == 0) return;
  close(socket.fd);
  socket.fd = -1;
}

using ContextPtr = std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)>;
using SslPtr = std::unique_ptr<SSL, void (*)(SSL*)>;

ContextPtr MakeContext(const TlsFiles& files) {
  ContextPtr context(SSL_CTX_new(TLS_client_method()), SSL_CTX_free);
  if (!files.ca.empty()) SSL_CTX_load_verify_locations(context.get(), files.ca.c_str(), nullptr);
  if (!files.cert.empty()) {
    SSL_CTX_use_certificate_chain_file(context.get(), files.cert.c_str());
    SSL_CTX_use_PrivateKey_file(context.get(), files.key.c_str(), SSL_FILETYPE_PEM);
  }
  // gRPC servers speak HTTP/2 only.
  constexpr unsigned char kHttp2[] = {2, 'h', '2'};
  SSL_CTX_set_alpn_protos(context.get(), kHttp2, sizeof(kHttp2));
  return context;
}

void WantName(SSL* ssl, const std::string& name) {
  in6_addr ignored;
  if (inet_pton(AF_INET, name.c_str(), &ignored) == 1 || inet_pton(AF_INET6, name.c_str(), &ignored) == 1) {
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), name.c_str());
  } else {
    SSL_set1_host(ssl, name.c_str());
    SSL_set_tlsext_host_name(ssl, name.c_str());
  }
}

// The server's certificate, by what verifying it found.
std::string ServerFault(SSL* ssl, const std::string& name) {
  const long result = SSL_get_verify_result(ssl);
  switch (result) {
    case X509_V_OK:
      return "";
    case X509_V_ERR_CERT_HAS_EXPIRED:
      return "its certificate has expired";
    case X509_V_ERR_HOSTNAME_MISMATCH:
    case X509_V_ERR_IP_ADDRESS_MISMATCH: {
      const std::unique_ptr<X509, void (*)(X509*)> certificate(SSL_get1_peer_certificate(ssl), X509_free);
      return absl::StrCat("its certificate is for ", absl::StrJoin(DescribeCertificate(*certificate).names, ", "),
                          ", not for ", name, " (--tls_server_name)");
    }
    default:
      return absl::StrCat("its certificate is not by an authority in --tls_ca: ",
                          X509_verify_cert_error_string(result));
  }
}

// What the server said before it hung up. Empty: nothing that is known here.
std::string Complaint() {
  const unsigned long error = ERR_peek_last_error();
  const char* const text = ERR_reason_error_string(error);
  ERR_clear_error();
  if (text == nullptr) return "";
  const std::string reason = text;
  if (reason == "wrong version number" || reason == "http request") return "it does not speak TLS";
  return absl::StrContains(reason, "alert") ? absl::StrCat("it refuses this side: ", reason) : "";
}

// gRPC servers that refuse a client's certificate hang up without a word.
std::string HungUp(const TlsFiles& files, bool asked_for_certificate) {
  if (!asked_for_certificate) return "";
  if (files.cert.empty()) return "it takes no client without a certificate (--tls_cert, --tls_key)";
  return absl::StrCat("it refuses the certificate in ", files.cert, "; its log says why");
}

}  // namespace

std::string ExplainTlsFailure(const std::string& address, const TlsFiles& files) {
  Socket socket;
  Dial(address, socket);
  if (socket.fd < 0) return "";
  const ContextPtr context = MakeContext(files);
  const SslPtr ssl(SSL_new(context.get()), SSL_free);
  const std::string name = files.server_name.empty() ? HostOf(address) : files.server_name;
  WantName(ssl.get(), name);
  SSL_set_fd(ssl.get(), socket.fd);
  bool asked_for_certificate = false;
  auto on_asked = [](SSL*, void* asked) {
    *static_cast<bool*>(asked) = true;
    return 1;
  };
  SSL_set_cert_cb(ssl.get(), on_asked, &asked_for_certificate);
  ERR_clear_error();
  const bool agreed = SSL_connect(ssl.get()) == 1;
  if (files.empty()) return agreed ? "it speaks TLS (--tls_ca)" : "";
  if (!agreed) return Complaint();
  if (std::string fault = ServerFault(ssl.get(), name); !fault.empty()) return fault;
  // In TLS 1.3 a server looks at the client's certificate when the client is done: it has said something by now.
  char first = 0;
  const int read = SSL_read(ssl.get(), &first, 1);
  if (read == 1 || SSL_get_error(ssl.get(), read) == SSL_ERROR_WANT_READ) return "";
  const std::string complaint = Complaint();
  return complaint.empty() ? HungUp(files, asked_for_certificate) : complaint;
}

}  // namespace salamander::service
