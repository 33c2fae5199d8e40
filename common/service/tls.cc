#include "common/service/tls.h"

#include <grpcpp/security/tls_credentials_options.h>

#include <map>
#include <mutex>
#include <string>
#include <tuple>

namespace salamander::service {

std::shared_ptr<CertificateWatch> WatchCertificates(const TlsFiles& files) {
  if (files.empty()) return nullptr;
  using Watched = std::tuple<std::string, std::string, std::string, int>;
  static auto* const mutex = new std::mutex;
  static auto* const known = new std::map<Watched, std::weak_ptr<CertificateWatch>>;
  std::lock_guard lock(*mutex);
  std::weak_ptr<CertificateWatch>& slot = (*known)[{files.cert, files.key, files.ca, files.reload_seconds}];
  std::shared_ptr<CertificateWatch> watch = slot.lock();
  if (watch == nullptr) {
    watch = std::make_shared<CertificateWatch>(files.key, files.cert, files.ca, files.reload_seconds);
    slot = watch;
  }
  return watch;
}

std::shared_ptr<grpc::ChannelCredentials> ChannelCredentials(const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureChannelCredentials();
  // The server's name is verified by default.
  grpc::experimental::TlsChannelCredentialsOptions options;
  options.set_certificate_provider(WatchCertificates(files));
  options.watch_root_certs();
  if (!files.cert.empty()) options.watch_identity_key_cert_pairs();
  return grpc::experimental::TlsCredentials(options);
}

std::shared_ptr<grpc::ServerCredentials> ServerCredentials(const TlsFiles& files) {
  if (files.empty()) return grpc::InsecureServerCredentials();
  grpc::experimental::TlsServerCredentialsOptions options(WatchCertificates(files));
  options.watch_identity_key_cert_pairs();
  if (files.client_certificates) {
    options.watch_root_certs();
    options.set_cert_request_type(GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  }
  return grpc::experimental::TlsServerCredentials(options);
}

}  // namespace salamander::service
