{{- define "salamander.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 40 | trimSuffix "-" }}
{{- end }}

{{- define "salamander.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" }}
{{- else }}
{{- $name := include "salamander.name" . }}
{{- if contains $name .Release.Name }}{{ .Release.Name | trunc 40 | trimSuffix "-" }}
{{- else }}{{ printf "%s-%s" .Release.Name $name | trunc 40 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{- define "salamander.selector" -}}
app.kubernetes.io/name: {{ include "salamander.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "salamander.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{ include "salamander.selector" . }}
{{- end }}

{{/* The names below are a YAML list: use fromYamlArray. */}}
{{- define "salamander.workerRoles" -}}
{{- range tuple "prefill" "decode" "worker" }}
{{- if (index $.Values .).enabled }}
- {{ . }}
{{- end }}
{{- end }}
{{- end }}

{{- define "salamander.serviceAccountName" -}}
{{- if .Values.serviceAccount.create }}{{ default (include "salamander.fullname" .) .Values.serviceAccount.name }}
{{- else }}{{ default "default" .Values.serviceAccount.name }}
{{- end }}
{{- end }}

{{- define "salamander.tlsSecret" -}}
{{- default (printf "%s-tls" (include "salamander.fullname" .)) .Values.tls.existingSecret }}
{{- end }}
{{- define "salamander.tokenSecret" -}}
{{- default (printf "%s-cluster-token" (include "salamander.fullname" .)) .Values.auth.clusterToken.existingSecret }}
{{- end }}
{{- define "salamander.keysSecret" -}}
{{- default (printf "%s-api-keys" (include "salamander.fullname" .)) .Values.auth.apiKeys.existingSecret }}
{{- end }}
{{- define "salamander.hasToken" -}}
{{- if or .Values.auth.clusterToken.existingSecret .Values.auth.clusterToken.value }}true{{ end }}
{{- end }}
{{- define "salamander.hasKeys" -}}
{{- if or .Values.auth.apiKeys.existingSecret .Values.auth.apiKeys.keys }}true{{ end }}
{{- end }}

{{/* The name that workers know the routers by: a headless service, so that each finds every replica. */}}
{{- define "salamander.routers" -}}
{{ include "salamander.fullname" . }}-routers.{{ .Release.Namespace }}.svc
{{- end }}

{{/* How long the running requests of a role may need. */}}
{{- define "salamander.graceSeconds" -}}
{{- $drain := .root.Values.drain }}
{{- if eq .role "prefill" }}{{ $drain.longestPrefillSeconds }}
{{- else }}{{ add $drain.longestPrefillSeconds $drain.longestDecodeSeconds }}
{{- end }}
{{- end }}

{{/* What a role's program is told whatever its role. */}}
{{- define "salamander.commonArgs" -}}
{{- $values := .root.Values }}
- --model=/model
- --load_format={{ $values.model.loadFormat }}
- --log_level={{ $values.log.level }}
- --log_format={{ $values.log.format }}
- --grace_seconds={{ include "salamander.graceSeconds" . }}
- --metrics_listen=0.0.0.0:{{ $values.ports.metrics }}
{{- if $values.tls.enabled }}
- --tls_cert=/etc/salamander/tls/tls.crt
- --tls_key=/etc/salamander/tls/tls.key
- --tls_ca=/etc/salamander/tls/ca.crt
- --health_listen=0.0.0.0:{{ $values.ports.health }}
{{- end }}
{{- if include "salamander.hasToken" .root }}
- --cluster_token_file=/etc/salamander/cluster-token/token
{{- end }}
{{- if $values.allowInsecure }}
- --allow_insecure
{{- end }}
{{- range $flag, $value := (index $values .role).flags }}
- {{ printf "--%s=%s" $flag (include "salamander.plain" $value) | quote }}
{{- end }}
{{- end }}

{{/* A number without an exponent: values come as floating point. */}}
{{- define "salamander.plain" -}}
{{- if and (kindIs "float64" .) (eq . (floor .)) }}{{ int64 . }}{{ else }}{{ . }}{{ end }}
{{- end }}

{{/* Of (root, role): the end of a pod's spec that all roles share. */}}
{{- define "salamander.podEnd" -}}
{{- $values := .root.Values }}
{{- $role := index $values .role }}
{{- with $role.nodeSelector }}
nodeSelector: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $role.tolerations }}
tolerations: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $role.affinity }}
affinity: {{ toYaml . | nindent 2 }}
{{- end }}
{{- with $role.topologySpread }}
topologySpreadConstraints:
  {{- range . }}
  - {{ toYaml . | nindent 4 }}
    labelSelector:
      matchLabels: {{ include "salamander.selector" $.root | nindent 8 }}
        app.kubernetes.io/component: {{ $.role }}
  {{- end }}
{{- end }}
{{- with $role.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with $role.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{ toYaml . | nindent 2 }}
{{- end }}
volumes:
  - name: model
    {{- if $values.model.existingClaim }}
    persistentVolumeClaim: {claimName: {{ $values.model.existingClaim | quote }}, readOnly: true}
    {{- else if $values.model.claim.create }}
    persistentVolumeClaim: {claimName: {{ include "salamander.fullname" .root }}-model, readOnly: true}
    {{- else if $values.model.hostPath }}
    hostPath: {path: {{ $values.model.hostPath | quote }}, type: Directory}
    {{- else }}
    image: {reference: {{ $values.model.image.reference | quote }}, pullPolicy: {{ $values.model.image.pullPolicy }}}
    {{- end }}
  - name: tmp
    emptyDir: {sizeLimit: 64Mi}
  {{- if ne .role "router" }}
  - name: shm
    emptyDir: {medium: Memory, sizeLimit: {{ $role.shmSize }}}
  {{- end }}
  {{- if $values.tls.enabled }}
  - name: tls
    secret: {secretName: {{ include "salamander.tlsSecret" .root }}}
  {{- end }}
  {{- if include "salamander.hasToken" .root }}
  - name: cluster-token
    secret:
      secretName: {{ include "salamander.tokenSecret" .root }}
      items: [{key: {{ $values.auth.clusterToken.key }}, path: token}]
  {{- end }}
  {{- if and (eq .role "router") (include "salamander.hasKeys" .root) }}
  - name: api-keys
    secret:
      secretName: {{ include "salamander.keysSecret" .root }}
      items: [{key: {{ $values.auth.apiKeys.key }}, path: api-keys.json}]
  {{- end }}
{{- end }}

{{- define "salamander.mounts" -}}
{{- $values := .root.Values }}
- {name: model, mountPath: /model, readOnly: true{{ with $values.model.subPath }}, subPath: {{ . | quote }}{{ end }}}
- {name: tmp, mountPath: /tmp}
{{- if ne .role "router" }}
- {name: shm, mountPath: /dev/shm}
{{- end }}
{{- if $values.tls.enabled }}
- {name: tls, mountPath: /etc/salamander/tls, readOnly: true}
{{- end }}
{{- if include "salamander.hasToken" .root }}
- {name: cluster-token, mountPath: /etc/salamander/cluster-token, readOnly: true}
{{- end }}
{{- if and (eq .role "router") (include "salamander.hasKeys" .root) }}
- {name: api-keys, mountPath: /etc/salamander/api-keys, readOnly: true}
{{- end }}
{{- end }}

{{- define "salamander.podSecurity" -}}
runAsNonRoot: true
runAsUser: 65532
runAsGroup: 65532
fsGroup: 65532
fsGroupChangePolicy: OnRootMismatch
seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "salamander.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{/* Of (root, role, service, readyService): startup, liveness and readiness by grpc.health.v1, at a port without TLS. */}}
{{- define "salamander.probes" -}}
{{- $values := .root.Values }}
{{- $port := ternary $values.ports.health .port $values.tls.enabled }}
startupProbe:
  grpc: {port: {{ $port }}}
  periodSeconds: 5
  failureThreshold: {{ div (add (index $values .role).startupSeconds 4) 5 }}
livenessProbe:
  grpc: {port: {{ $port }}}
  periodSeconds: 10
  timeoutSeconds: 5
  failureThreshold: 6
readinessProbe:
  grpc: {port: {{ $port }}{{ with .readyService }}, service: {{ . }}{{ end }}}
  periodSeconds: 2
  timeoutSeconds: 2
  failureThreshold: 3
{{- end }}
