{{- /* Probes. Readiness asks for the service by name, as the callers' pools do. Liveness asks for "live", which
       is NOT_SERVING only when work makes no progress: loading, waiting and draining are no reason to
       restart. A model's start is therefore limited by a budget of its own, by the size of the model. */ -}}
{{- define "raglan.probes" -}}
{{- if eq .w.role "service" -}}
{{- $models := gt (float64 .w.model.gib) 0.0 -}}
{{- $loads := and $models (not (has (dig "settings" "engine" "" .w) (list "http" "null"))) -}}
{{- range $kind := list "startup" "readiness" "liveness" }}
{{- $given := index $.w.probes $kind }}
{{- if dig "enabled" true $given }}
{{- $chosen := omit $given "enabled" "baseSeconds" "secondsPerGiB" }}
{{- $probe := include "raglan.check" (dict "root" $.root "name" $.name "w" $.w "kind" $kind "loads" $loads) | fromYaml }}
{{- if eq $kind "startup" }}
{{- $seconds := add (ceil $given.baseSeconds) (ceil (mulf (float64 $given.secondsPerGiB) (ternary (float64 $.w.model.gib) 0.0 $loads))) }}
{{- $_ := set $probe "failureThreshold" (int (ceil (divf (float64 $seconds) (float64 $given.periodSeconds)))) }}
{{- end }}
{{- if or (hasKey $chosen "grpc") (hasKey $chosen "httpGet") (hasKey $chosen "exec") (hasKey $chosen "tcpSocket") }}
{{- $probe = omit $probe "grpc" "httpGet" "exec" }}
{{- end }}
{{ $kind }}Probe:
  {{- mergeOverwrite $probe (deepCopy $chosen) | toYaml | nindent 2 }}
{{- end }}
{{- end }}
{{- else -}}
readinessProbe:
  {{- omit (mergeOverwrite (include (printf "raglan.check.%s" .name) . | fromYaml) (deepCopy .w.probes.readiness)) "enabled" | toYaml | nindent 2 }}
{{- end }}
{{- end -}}

{{- define "raglan.check" -}}
{{- $live := or (eq .kind "liveness") (and (eq .kind "startup") (not .loads)) -}}
{{- if eq .name "gateway" -}}
httpGet: {path: {{ ternary "/healthz" "/readyz" $live }}, port: http}
{{- else if .root.Values.tls.existingSecret -}}
exec:
  command: [raglan-health, "127.0.0.1:{{ .w.port }}", --service, {{ .name }}{{ if $live }}, --live{{ end }}]
{{- else -}}
grpc: {port: {{ .w.port }}, service: {{ ternary "live" (printf "raglan.v1.%sService" (title .name)) $live }}}
{{- end -}}
{{- end -}}
