{{- /* Names, labels and images. */ -}}

{{- define "raglan.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 40 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) | trunc 40 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{- /* Labels that never change: selectors are made of them. */ -}}
{{- define "raglan.selector" -}}
app.kubernetes.io/name: {{ default .root.Chart.Name .root.Values.nameOverride }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
app.kubernetes.io/component: {{ .name }}
{{- end -}}

{{- /* part-of is the Prometheus job that rules and dashboards expect. */ -}}
{{- define "raglan.labels" -}}
{{ include "raglan.selector" . }}
app.kubernetes.io/part-of: raglan
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ .root.Chart.Name }}-{{ .root.Chart.Version }}
{{- end -}}

{{- /* metadata of an object of one workload: root, name, w (the workload), and optional suffix. */ -}}
{{- define "raglan.metadata" -}}
name: {{ include "raglan.fullname" .root }}-{{ .name }}{{ with .suffix }}-{{ . }}{{ end }}
namespace: {{ .root.Release.Namespace }}
labels:
  {{- include "raglan.labels" . | nindent 2 }}
  {{- with (.w).labels }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- with (.w).annotations }}
annotations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "raglan.serviceAccountName" -}}
{{- with .Values.serviceAccount -}}
{{- ternary (default (include "raglan.fullname" $) .name) (default "default" .name) .create -}}
{{- end -}}
{{- end -}}

{{- /* Image of a workload. A GPU variant is a tag of its own. */ -}}
{{- define "raglan.image" -}}
{{- $i := .w.image -}}
{{- $values := .root.Values -}}
{{- $ours := eq .w.role "service" -}}
{{- $repository := default (printf "raglan/%s" .name) $i.repository -}}
{{- $tag := default (ternary (default .root.Chart.AppVersion $values.image.tag) "" $ours) $i.tag -}}
{{- $suffix := $i.suffix -}}
{{- if and $ours .w.gpu.name (not $suffix) -}}
{{- $suffix = ternary "-vllm" "-gpu" (eq .name "generator") -}}
{{- end -}}
{{- with $values.image.registry }}{{ trimSuffix "/" . }}/{{ end }}{{ $repository }}:{{ $tag }}{{ $suffix }}{{ with $i.digest }}@{{ . }}{{ end }}
{{- end -}}

{{- /* The image raglan/cli, as raglan.image takes it. */ -}}
{{- define "raglan.cliImage" -}}
{{- include "raglan.image" (dict "root" . "name" "cli" "w" (dict "role" "service" "image" dict "gpu" (dict "name" ""))) -}}
{{- end -}}

{{- /* Environment and mount of mutual TLS, of a process that calls services. */ -}}
{{- define "raglan.tlsEnv" -}}
{{- if .Values.tls.existingSecret -}}
RAGLAN_TLS_CERT: /run/secrets/tls/tls.crt
RAGLAN_TLS_KEY: /run/secrets/tls/tls.key
RAGLAN_TLS_CA: /run/secrets/tls/ca.crt
{{- with .Values.tls.domain }}
RAGLAN_TLS_DOMAIN: {{ . }}
{{- end }}
{{- end -}}
{{- end -}}

{{- /* A number of values.yaml as it was written: Helm reads all numbers as floats. */ -}}
{{- define "raglan.scalar" -}}
{{- if kindIs "string" . }}{{ . }}{{ else }}{{ toJson . }}{{ end -}}
{{- end -}}
