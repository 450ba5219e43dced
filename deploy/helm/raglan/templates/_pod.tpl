{{- /* The pod of a workload: root, name, w. Used by deployment.yaml and statefulset.yaml. */ -}}
{{- define "raglan.pod" -}}
{{- $root := .root -}}
{{- $w := .w -}}
{{- $service := eq $w.role "service" -}}
metadata:
  labels:
    {{- include "raglan.labels" . | nindent 4 }}
    {{- with $w.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  {{- $scraped := dict "prometheus.io/scrape" "true" "prometheus.io/port" (ternary $w.port $root.Values.metricsPort (eq .name "gateway") | toString) }}
  {{- with mergeOverwrite (ternary $scraped dict $service) $w.podAnnotations }}
  annotations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
spec:
  {{- mergeOverwrite (include "raglan.podSpec" . | fromYaml) (deepCopy $w.podSpec) | toYaml | nindent 2 }}
{{- end -}}

{{- define "raglan.podSpec" -}}
{{- $root := .root -}}
{{- $w := .w -}}
{{- $service := eq $w.role "service" -}}
serviceAccountName: {{ default (include "raglan.serviceAccountName" $root) $w.serviceAccountName }}
automountServiceAccountToken: false
# Kubernetes' variables of its Services, such as RAGLAN_GATEWAY_PORT=tcp://..., would be taken for settings.
enableServiceLinks: false
terminationGracePeriodSeconds: {{ add (ceil $w.shutdown.preStopS) (ceil $w.shutdown.drainS) (ceil $w.shutdown.graceS) 5 }}
{{- with $root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
securityContext:
  {{- toYaml $w.podSecurityContext | nindent 2 }}
{{- with mergeOverwrite (dict) (deepCopy (dig "device" "nodeSelector" dict $w.gpu)) $w.nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $w.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with concat $w.tolerations (dig "device" "tolerations" list $w.gpu) }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $w.topologySpreadConstraints }}
topologySpreadConstraints:
  {{- range . }}
  {{- $selected := dict "labelSelector" (dict "matchLabels" (include "raglan.selector" $ | fromYaml)) }}
  - {{- ternary . (mergeOverwrite $selected .) (hasKey . "labelSelector") | toYaml | nindent 4 }}
  {{- end }}
{{- end }}
{{- with $w.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with default (dig "device" "runtimeClassName" "" $w.gpu) $w.runtimeClassName }}
runtimeClassName: {{ . }}
{{- end }}
{{- if eq (dig "device" "kind" "" $w.gpu) "dra" }}
resourceClaims:
  - name: gpu
    {{ ternary "resourceClaimTemplateName" "resourceClaimName" (dig "perPod" false $w.gpu.device) }}: {{ include "raglan.fullname" $root }}-gpu-{{ include "raglan.deviceClaimSuffix" (dict "root" $root "name" $w.gpu.name) }}
{{- end }}
{{- with concat (include "raglan.initContainers" . | fromYamlArray) $w.extraInitContainers }}
initContainers:
  {{- toYaml . | nindent 2 }}
{{- end }}
containers:
  - name: {{ .name }}
    image: {{ include "raglan.image" . }}
    imagePullPolicy: {{ $root.Values.image.pullPolicy }}
    securityContext:
      {{- toYaml $w.securityContext | nindent 6 }}
    {{- with $w.command }}
    command:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- with default (ternary list (include "raglan.bundledArgs" . | fromYamlArray) $service) $w.args }}
    args:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    ports:
      {{- range $port, $number := (include "raglan.ports" . | fromYaml) }}
      - {name: {{ $port }}, containerPort: {{ $number }}}
      {{- end }}
    env:
      {{- include (ternary "raglan.env" (printf "raglan.env.%s" .name) $service) . | trim | nindent 6 }}
    {{- with $w.extraEnvFrom }}
    envFrom:
      {{- toYaml . | nindent 6 }}
    {{- end }}
    {{- if $w.shutdown.preStopS }}
    lifecycle:
      preStop:
        sleep: {seconds: {{ ceil $w.shutdown.preStopS }}}
    {{- end }}
    {{- include "raglan.probes" . | nindent 4 }}
    resources:
      {{- mergeOverwrite (deepCopy $w.resources) (include "raglan.gpuResources" . | fromYaml) | toYaml | nindent 6 }}
    volumeMounts:
      {{- include "raglan.volumeMounts" . | trim | nindent 6 }}
      {{- with $w.extraVolumeMounts }}
      {{- toYaml . | nindent 6 }}
      {{- end }}
  {{- with $w.extraContainers }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
  - name: tmp
    emptyDir: {medium: Memory, sizeLimit: {{ $w.tmpSize }}}
  {{- include "raglan.volumes" . | trim | nindent 2 }}
  {{- with $w.extraVolumes }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* port name: number. "metrics" is what podmonitor.yaml scrapes, and "http" of the gateway. */ -}}
{{- define "raglan.ports" -}}
{{- if eq .w.role "bundled" -}}
{{ .name }}: {{ .w.port }}
{{- else if eq .name "gateway" -}}
http: {{ .w.port }}
{{- else -}}
grpc: {{ .w.port }}
metrics: {{ .root.Values.metricsPort }}
{{- if .w.otlpFrom }}
otlp: {{ .w.otlpPort }}
{{- end }}
{{- end -}}
{{- end -}}

{{- define "raglan.gpuResources" -}}
{{- $device := dig "device" dict .w.gpu -}}
{{- $claims := dict -}}
{{- if eq (dig "kind" "" $device) "dra" -}}
{{- $claims = dict "claims" (list (dict "name" "gpu")) -}}
{{- else if $device -}}
{{- $resource := default (ternary "nvidia.com/gpu.shared" "nvidia.com/gpu" (eq $device.kind "time-sliced")) (dig "resource" "" $device) -}}
{{- $claims = dict "limits" (dict $resource (int (dig "count" 1 $device))) -}}
{{- end -}}
{{- toYaml $claims -}}
{{- end -}}

{{- /* Waits for the download Job where a model of this service is its business. */ -}}
{{- define "raglan.initContainers" -}}
{{- $mine := false -}}
{{- range (include "raglan.models" .root | fromYaml).models }}{{ if eq .service $.name }}{{ $mine = true }}{{ end }}{{ end -}}
{{- if $mine -}}
- name: wait-for-models
  image: {{ include "raglan.image" . }}
  imagePullPolicy: {{ .root.Values.image.pullPolicy }}
  securityContext:
    {{- toYaml .w.securityContext | nindent 4 }}
  command: [sh, -c, "until test -e {{ include "raglan.modelsReady" .root }}; do sleep 2; done"]
  resources:
    requests: {cpu: 10m, memory: 16Mi}
    limits: {memory: 64Mi}
  volumeMounts:
    - {name: cache, mountPath: /var/cache/raglan}
{{- else -}}
[]
{{- end -}}
{{- end -}}

{{- define "raglan.volumeMounts" -}}
- {name: tmp, mountPath: /tmp}
{{- if eq .w.role "service" }}
- {name: data, mountPath: /var/lib/raglan}
{{- if has .name (list "embedder" "reranker" "generator") }}
- {name: cache, mountPath: /var/cache/raglan}
{{- end }}
{{- if .w.gpu.name }}
- {name: shm, mountPath: /dev/shm}
{{- end }}
{{- if include "raglan.secretFiles" . | fromYaml }}
- {name: secrets, mountPath: /run/secrets/raglan, readOnly: true}
{{- end }}
{{- if and (eq .name "ingester") (include "raglan.sourcesConfigMap" .root) }}
# The folder, not the file by subPath, which a change of the ConfigMap would not reach.
- {name: sources, mountPath: /etc/raglan/sources, readOnly: true}
{{- end }}
{{- if .root.Values.tls.existingSecret }}
- {name: tls, mountPath: /run/secrets/tls, readOnly: true}
{{- end }}
{{- else }}
{{ include (printf "raglan.volumeMounts.%s" .name) . }}
{{- end }}
{{- end -}}

{{- define "raglan.volumes" -}}
{{- if not .w.persistence.enabled }}
- name: data
  emptyDir: {}
{{- else if or .w.persistence.shared .w.persistence.existingClaim }}
- name: data
  persistentVolumeClaim: {claimName: {{ default (printf "%s-%s" (include "raglan.fullname" .root) .name) .w.persistence.existingClaim }}}
{{- end }}
{{- if eq .w.role "service" }}
{{- if has .name (list "embedder" "reranker" "generator") }}
- name: cache
  {{- if .root.Values.modelCache.enabled }}
  persistentVolumeClaim: {claimName: {{ include "raglan.modelClaim" .root }}}
  {{- else }}
  emptyDir: {}
  {{- end }}
{{- end }}
{{- if .w.gpu.name }}
- name: shm
  emptyDir: {medium: Memory}
{{- end }}
{{- with include "raglan.secretFiles" . | fromYaml }}
- name: secrets
  projected:
    defaultMode: 288
    sources:
      {{- range $setting, $from := . }}
      - secret:
          name: {{ $from.secret }}
          items: [{key: {{ $from.key | quote }}, path: {{ $setting }}}]
      {{- end }}
{{- end }}
{{- if and (eq .name "ingester") (include "raglan.sourcesConfigMap" .root) }}
- name: sources
  configMap: {name: {{ include "raglan.sourcesConfigMap" .root }}}
{{- end }}
{{- with .root.Values.tls.existingSecret }}
- name: tls
  secret: {secretName: {{ . }}, defaultMode: 288}
{{- end }}
{{- else }}
{{ include (printf "raglan.volumes.%s" .name) . }}
{{- end }}
{{- end -}}

{{- define "raglan.modelClaim" -}}
{{- default (printf "%s-models" (include "raglan.fullname" .)) .Values.modelCache.existingClaim -}}
{{- end -}}
