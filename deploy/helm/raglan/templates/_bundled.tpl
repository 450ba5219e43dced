{{- /* Bundled servers: what differs between them. */ -}}

{{- define "raglan.bundledArgs" -}}
{{- if eq .name "redis" -}}
- sh
- -c
# From standard input, so that no list of processes shows the password.
- |
  exec redis-server - <<CONFIGURATION
  port {{ .w.port }}
  requirepass "`cat /run/secrets/raglan/{{ .root.Values.redis.key }}`"
  maxmemory 256mb
  maxmemory-policy volatile-lru
  save ""
  dir /data
  CONFIGURATION
{{- else -}}
[]
{{- end }}
{{- end -}}

{{- define "raglan.env.postgresql" -}}
- {name: POSTGRES_USER, value: raglan}
- {name: POSTGRES_DB, value: raglan}
- {name: POSTGRES_PASSWORD_FILE, value: /run/secrets/raglan/{{ .root.Values.postgresql.key }}}
{{- end -}}
{{- define "raglan.check.postgresql" -}}
exec: {command: [pg_isready, -h, 127.0.0.1, -U, raglan, -d, raglan]}
{{- end -}}
{{- define "raglan.volumeMounts.postgresql" -}}
- {name: data, mountPath: /var/lib/postgresql}
- {name: run, mountPath: /var/run/postgresql}
- {name: secrets, mountPath: /run/secrets/raglan, readOnly: true}
{{- end -}}
{{- define "raglan.volumes.postgresql" -}}
- name: run
  emptyDir: {medium: Memory, sizeLimit: 16Mi}
- name: secrets
  secret: {secretName: {{ include "raglan.serverSecret" . }}, defaultMode: 288} # 0440
{{- end -}}

{{- define "raglan.env.redis" }}[]{{ end -}}
{{- define "raglan.check.redis" -}}
tcpSocket: {port: redis}
{{- end -}}
{{- define "raglan.volumeMounts.redis" -}}
- {name: data, mountPath: /data}
- {name: secrets, mountPath: /run/secrets/raglan, readOnly: true}
{{- end -}}
{{- define "raglan.volumes.redis" -}}
- name: secrets
  secret: {secretName: {{ include "raglan.serverSecret" . }}, defaultMode: 288} # 0440
{{- end -}}

{{- define "raglan.env.qdrant" -}}
- name: QDRANT__SERVICE__API_KEY
  valueFrom: {secretKeyRef: {name: {{ include "raglan.serverSecret" . }}, key: {{ .root.Values.qdrant.key }}}}
- {name: QDRANT__STORAGE__SNAPSHOTS_PATH, value: /qdrant/storage/snapshots}
- {name: QDRANT__SERVICE__HOST, value: {{ .root.Values.listen | quote }}}
- {name: QDRANT__TELEMETRY_DISABLED, value: "true"}
{{- end -}}
{{- define "raglan.check.qdrant" -}}
httpGet: {path: /readyz, port: qdrant}
{{- end -}}
{{- define "raglan.volumeMounts.qdrant" -}}
- {name: data, mountPath: /qdrant/storage}
{{- end -}}
{{- define "raglan.volumes.qdrant" -}}
{{- end -}}
