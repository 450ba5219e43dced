{{- /* Environment of a service: what the chart decides, then settings, secrets and extraEnv. Each name
       appears once, because server-side apply refuses a list with a name twice. */ -}}
{{- define "raglan.env" -}}
{{- $root := .root -}}
{{- $w := .w -}}
{{- $prefix := printf "RAGLAN_%s_" (upper .name) -}}
{{- $env := dict "RAGLAN_DATA" "/var/lib/raglan" "HOME" "/tmp" -}}
{{- $own := dict "HOST" $root.Values.listen "PORT" $w.port "LOG_FORMAT" "json" "SHUTDOWN_DRAIN_S" $w.shutdown.drainS "SHUTDOWN_GRACE_S" $w.shutdown.graceS -}}
{{- if ne .name "gateway" -}}
{{- $_ := set $own "METRICS_PORT" $root.Values.metricsPort -}}
{{- end -}}
{{- range (include "raglan.calls" $root | fromYaml | dig .name list) -}}
{{- $_ := set $own (printf "%s_ADDRESS" (upper .)) (include "raglan.address" (dict "root" $root "name" .)) -}}
{{- end -}}
{{- $own = mergeOverwrite $own (include (printf "raglan.env.%s" .name) . | fromYaml) (include "raglan.env.device" . | fromYaml) -}}
{{- range $setting, $value := $w.settings -}}
{{- $_ := set $own (upper $setting) $value -}}
{{- end -}}
{{- range $setting, $value := $own -}}
{{- if not (kindIs "invalid" $value) -}}
{{- $_ := set $env (print $prefix $setting) (include "raglan.scalar" $value) -}}
{{- end -}}
{{- end -}}
{{- range $setting, $file := (include "raglan.secretFiles" . | fromYaml) -}}
{{- $_ := set $env (print $prefix (upper $setting) "_FILE") (printf "/run/secrets/raglan/%s" $setting) -}}
{{- end -}}
{{- if has .name (list "embedder" "reranker" "generator") -}}
{{- $_ := set $env "HOME" "/var/cache/raglan" -}}
{{- $_ := set $env "HF_HOME" "/var/cache/raglan/models" -}}
{{- $_ := set $env "HF_HUB_OFFLINE" "1" -}}
{{- /* PyTorch asks for a user's name, which a number that a cluster chooses lacks. */ -}}
{{- $_ := set $env "USER" "raglan" -}}
{{- end -}}
{{- if and $w.gpu.name $w.gpu.memoryShare (ne .name "generator") -}}
{{- /* The limit of PyTorch's allocator; the generator's is a setting of its own. */ -}}
{{- $_ := set $env "PYTORCH_ALLOC_CONF" (printf "per_process_memory_fraction:%s" (include "raglan.scalar" $w.gpu.memoryShare)) -}}
{{- end -}}
{{- $env = mergeOverwrite $env (include "raglan.tlsEnv" $root | fromYaml) -}}
{{- with $root.Values.telemetry.collector }}{{ $_ := set $env "OTEL_EXPORTER_OTLP_ENDPOINT" . }}{{ end -}}
{{- if $root.Values.telemetry.content }}{{ $_ := set $env "RAGLAN_TRACE_CONTENT" "1" }}{{ end -}}
{{- $streams := printf "%sSTREAMS" $prefix -}}
{{- $counted := and (has .name (list "embedder" "reranker")) (not $w.gpu.name) (not (hasKey $env $streams)) -}}
{{- range $w.extraEnv -}}
{{- $_ := unset $env .name -}}
{{- if eq .name $streams }}{{ $counted = false }}{{ end -}}
{{- end -}}
{{- range $name, $value := $env }}
- {name: {{ $name }}, value: {{ $value | quote }}}
{{- end }}
{{- if $counted }}
# As many streams as cores are requested: without a CPU limit the service would count those of its node.
- {name: {{ $streams }}, valueFrom: {resourceFieldRef: {resource: requests.cpu, divisor: "1"}}}
{{- end }}
{{- with $w.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "raglan.env.gateway" -}}
{{- $name := printf "%s-gateway" (include "raglan.fullname" .root) -}}
{{- $hosts := list "localhost" $name (printf "%s.%s" $name .root.Release.Namespace) (printf "%s.%s.svc" $name .root.Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .root.Release.Namespace) -}}
{{- range .root.Values.ingress.hosts }}{{ if and $.root.Values.ingress.enabled .host }}{{ $hosts = append $hosts .host }}{{ end }}{{ end -}}
ALLOWED_HOSTS: {{ concat $hosts .w.hosts | uniq | join "," | quote }}
DATA_DIR: /tmp/raglan
{{- with include "raglan.serverUrl" (dict "root" .root "name" "postgresql") }}
DATABASE_URL: {{ . }}
{{- end }}
{{- with include "raglan.serverUrl" (dict "root" .root "name" "redis") }}
REDIS_URL: {{ . }}
{{- end }}
{{- end -}}

{{- define "raglan.env.tracer" -}}
{{- $name := printf "%s-tracer" (include "raglan.fullname" .root) -}}
OTLP_HOST: {{ ternary .root.Values.listen "127.0.0.1" (not (empty .w.otlpFrom)) | quote }}
OTLP_PORT: {{ .w.otlpPort }}
ALLOWED_HOSTS: {{ list $name (printf "%s.%s" $name .root.Release.Namespace) (printf "%s.%s.svc" $name .root.Release.Namespace) (printf "%s.%s.svc.cluster.local" $name .root.Release.Namespace) | join "," | quote }}
{{- end -}}

{{- define "raglan.env.embedder" -}}
CACHE_DIR: /var/cache/raglan/models
{{- end -}}

{{- define "raglan.env.reranker" -}}
CACHE_DIR: /var/cache/raglan/models
{{- end -}}

{{- define "raglan.env.retriever" -}}
{{- with include "raglan.qdrantUrl" .root -}}
STORE: qdrant
QDRANT_URL: {{ . }}
{{- else -}}
STORE: edge
{{- end -}}
{{- end -}}

{{- define "raglan.env.ingester" -}}
{{- $env := dict -}}
{{- with include "raglan.serverUrl" (dict "root" .root "name" "postgresql") }}{{ $_ := set $env "DATABASE_URL" . }}{{ end -}}
{{- if include "raglan.sourcesConfigMap" .root }}{{ $_ := set $env "SOURCES_FILE" (print "/etc/raglan/sources/" .root.Values.sources.key) }}{{ end -}}
{{- toYaml $env -}}
{{- end -}}

{{- /* Name of the ConfigMap of the sources file; empty where there is none. */ -}}
{{- define "raglan.sourcesConfigMap" -}}
{{- with .Values.sources -}}
{{- if .existingConfigMap }}{{ .existingConfigMap }}{{ else if .entries }}{{ include "raglan.fullname" $ }}-ingester-sources{{ end -}}
{{- end -}}
{{- end -}}

{{- define "raglan.env.generator" }}{}{{ end -}}

{{- /* The device is always named, so that a GPU that is missing stops the start. */ -}}
{{- define "raglan.env.device" -}}
{{- $gpu := .w.gpu -}}
{{- $count := int (default 1 (dig "device" "count" 1 $gpu)) -}}
{{- $devices := list -}}
{{- range $i := until $count }}{{ $devices = append $devices (printf "cuda:%d" $i) }}{{ end -}}
{{- if has .name (list "embedder" "reranker") -}}
DEVICE: {{ ternary (join "," $devices) "cpu" (ne $gpu.name "") | quote }}
{{- if $gpu.name }}
{{ ternary "ENGINE" "RUNTIME" (eq .name "embedder") }}: torch
{{- end }}
{{- else if and (eq .name "generator") $gpu.name -}}
ENGINE: vllm
TENSOR_PARALLEL_SIZE: {{ $count }}
{{- with $gpu.memoryShare }}
GPU_MEMORY_UTILIZATION: {{ . }}
{{- end }}
{{- else -}}
{}
{{- end -}}
{{- end -}}

{{- /* setting: {secret, key}, of the secrets that a service reads as files. */ -}}
{{- define "raglan.secretFiles" -}}
{{- $root := .root -}}
{{- $files := dict -}}
{{- range $setting, $from := .w.secrets -}}
{{- $_ := set $files $setting (dict "secret" $from.existingSecret "key" $from.key) -}}
{{- end -}}
{{- if eq .name "gateway" -}}
{{- with include "raglan.adminKey" $root | fromJson }}{{ $_ := set $files "admin_key" (pick . "secret" "key") }}{{ end -}}
{{- end -}}
{{- range (include "raglan.backends" $root | fromYaml | dig .name list) -}}
{{- $from := index $root.Values . -}}
{{- $part := ternary "password" "url" (or $from.bundled (ne $from.url "")) -}}
{{- $setting := get (dict "redis" (print "redis_" $part) "postgresql" (print "database_" $part) "qdrant" "qdrant_api_key") . -}}
{{- $secret := include "raglan.serverSecret" (dict "root" $root "name" .) -}}
{{- with $secret }}{{ $_ := set $files $setting (dict "secret" . "key" $from.key) }}{{ end -}}
{{- end -}}
{{- toYaml $files -}}
{{- end -}}
