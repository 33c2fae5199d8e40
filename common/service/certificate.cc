#include "common/service/certificate.h"

#include <arpa/inet.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <memory>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/base/status_macros.h"
#include "common/service/secret_file.h"

namespace salamander::service {
namespace {

template <auto free>
struct Freed {
  template <typename T>
  void operator()(T* object) const {
    free(object);
  }
};
using BioPtr = std::unique_ptr<BIO, Freed<BIO_free>>;
using X509Ptr = std::unique_ptr<X509, Freed<X509_free>>;
using KeyPtr = std::unique_ptr<EVP_PKEY, Freed<EVP_PKEY_free>>;
using NamesPtr = std::unique_ptr<GENERAL_NAMES, Freed<GENERAL_NAMES_free>>;

std::string LastError() {
  const char* reason = ERR_reason_error_string(ERR_peek_last_error());
  ERR_clear_error();
  return reason == nullptr ? "unknown error" : reason;
}

BioPtr Memory(const std::string& text) { return BioPtr(BIO_new_mem_buf(text.data(), static_cast<int>(text.size()))); }

// No key of ours has a password, and nobody is there to be asked.
int NoPassword(char*, int, int, void*) { return -1; }

absl::StatusOr<X509Ptr> FirstCertificate(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  X509Ptr certificate(PEM_read_bio_X509(Memory(text).get(), nullptr, NoPassword, nullptr));
  if (certificate != nullptr) return certificate;
  return absl::InvalidArgumentError(absl::StrCat(path, " has no PEM certificate: ", LastError()));
}

absl::StatusOr<KeyPtr> ReadKey(const std::string& path) {
  ASSIGN_OR_RETURN(const std::string text, ReadSmallFile(path));
  KeyPtr key(PEM_read_bio_PrivateKey(Memory(text).get(), nullptr, NoPassword, nullptr));
  if (key != nullptr) return key;
  return absl::InvalidArgumentError(absl::StrCat(path, " has no PEM private key without password: ", LastError()));
}

absl::Time ToTime(const ASN1_TIME* time) {
  std::tm tm{};
  ASN1_TIME_to_tm(time, &tm);
  return absl::FromTM(tm, absl::UTCTimeZone());
}

std::string ToText(const GENERAL_NAME& name) {
  char text[INET6_ADDRSTRLEN] = "";
  if (name.type == GEN_DNS) {
    const auto* dns = reinterpret_cast<const char*>(ASN1_STRING_get0_data(name.d.dNSName));
    return std::string(dns, ASN1_STRING_length(name.d.dNSName));
  }
  if (name.type == GEN_IPADD) {
    const int family = ASN1_STRING_length(name.d.iPAddress) == 4 ? AF_INET : AF_INET6;
    inet_ntop(family, ASN1_STRING_get0_data(name.d.iPAddress), text, sizeof(text));
  }
  return text;
}

absl::Status CheckOwn(const TlsFiles& files) {
  ASSIGN_OR_RETURN(const X509Ptr certificate, FirstCertificate(files.cert));
  ASSIGN_OR_RETURN(const KeyPtr key, ReadKey(files.key));
  if (X509_check_private_key(certificate.get(), key.get()) != 1) {
    ERR_clear_error();
    return absl::InvalidArgumentError(
        absl::StrCat("--tls_key: ", files.key, " is not the key of the certificate in ", files.cert));
  }
  const CertificateInfo info = DescribeCertificate(*certificate);
  if (absl::Now() > info.not_after) {
    return absl::InvalidArgumentError(
        absl::StrCat("--tls_cert: the certificate in ", files.cert, " expired ", absl::FormatTime(info.not_after)));
  }
  if (absl::Now() < info.not_before) {
    return absl::InvalidArgumentError(absl::StrCat("--tls_cert: the certificate in ", files.cert,
                                                   " is not valid before ", absl::FormatTime(info.not_before)));
  }
  return absl::OkStatus();
}

}  // namespace

CertificateInfo DescribeCertificate(const X509& certificate) {
  CertificateInfo info;
  char subject[256] = "";
  X509_NAME_get_text_by_NID(X509_get_subject_name(&certificate), NID_commonName, subject, sizeof(subject));
  info.subject = subject;
  info.not_before = ToTime(X509_get0_notBefore(&certificate));
  info.not_after = ToTime(X509_get0_notAfter(&certificate));
  const NamesPtr names(
      static_cast<GENERAL_NAMES*>(X509_get_ext_d2i(&certificate, NID_subject_alt_name, nullptr, nullptr)));
  for (int i = 0; names != nullptr && i < sk_GENERAL_NAME_num(names.get()); ++i) {
    std::string name = ToText(*sk_GENERAL_NAME_value(names.get(), i));
    if (!name.empty()) info.names.push_back(std::move(name));
  }
  return info;
}

absl::StatusOr<CertificateInfo> ReadCertificate(const std::string& path) {
  ASSIGN_OR_RETURN(const X509Ptr certificate, FirstCertificate(path));
  return DescribeCertificate(*certificate);
}

absl::Status CheckTlsFiles(const TlsFiles& files) {
  if (files.empty()) return absl::OkStatus();
  if (files.cert.empty() != files.key.empty()) {
    return absl::InvalidArgumentError("--tls_cert and --tls_key must be given together");
  }
  if (files.ca.empty()) return absl::InvalidArgumentError("--tls_cert needs --tls_ca, to verify peers against");
  RETURN_IF_ERROR(Annotate(FirstCertificate(files.ca).status(), "--tls_ca"));
  return files.cert.empty() ? absl::OkStatus() : CheckOwn(files);
}

absl::Status CheckServerTlsFiles(const TlsFiles& files) {
  if (!files.empty() && files.cert.empty()) {
    return absl::InvalidArgumentError("--tls_ca needs --tls_cert and --tls_key: this process listens");
  }
  return CheckTlsFiles(files);
}

}  // namespace salamander::service
