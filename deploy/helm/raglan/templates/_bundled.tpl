{{- /* Bundled servers: what differs between them. */ -}}

{{- define "raglan.bundledArgs" -}}
{{ if eq .name "redis" }}[redis-server, /run/secrets/raglan/redis.conf]{{ else }}[]{{ end }}
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
  secret: {secretName: {{ include "raglan.fullname" .root }}-postgresql, defaultMode: 288} # 0440
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
  secret: {secretName: {{ include "raglan.fullname" .root }}-redis, defaultMode: 288} # 0440
{{- end -}}

{{- define "raglan.env.qdrant" -}}
- name: QDRANT__SERVICE__API_KEY
  valueFrom: {secretKeyRef: {name: {{ include "raglan.fullname" .root }}-qdrant, key: {{ .root.Values.qdrant.key }}}}
- {name: QDRANT__STORAGE__SNAPSHOTS_PATH, value: /qdrant/storage/snapshots}
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
