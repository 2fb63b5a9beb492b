{{- define "governor.name" -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- end -}}

{{- define "governor.selector" -}}
app.kubernetes.io/name: governor
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "governor.labels" -}}
{{ include "governor.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version }}
{{- end -}}
