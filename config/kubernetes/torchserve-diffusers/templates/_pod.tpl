{{/* The pod of a pool: (dict "root" $ "name" NAME "pool" POOL "fed" whether a gateway worker feeds it). */}}
{{- define "diffusion.podSpec" -}}
{{- $root := .root -}}
{{- $pool := .pool -}}
{{- $values := $root.Values -}}
{{- $labels := dict "root" $root "component" "inference-worker" "pool" .name -}}
{{- $probe := "/app/scripts/containers/probe.py" -}}
serviceAccountName: {{ include "diffusion.serviceAccount" $root }}
automountServiceAccountToken: false
enableServiceLinks: false
{{- with $values.imagePullSecrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "diffusion.priority" (dict "root" $root "own" $pool.priorityClassName "kind" "pool") }}
priorityClassName: {{ . }}
{{- end }}
securityContext: {{- include "diffusion.podSecurity" $root | nindent 2 }}
# The drain, and half a minute for TorchServe to end its workers in.
terminationGracePeriodSeconds: {{ add 30 $pool.drainSeconds }}
topologySpreadConstraints: {{- include "diffusion.spread" $labels | nindent 2 }}
{{- with $pool.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with $pool.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
initContainers:
  # Nothing is served that does not hold against its hash.
  - name: fetch-models
    image: {{ include "diffusion.image" (dict "root" $root "image" $values.images.gateway) }}
    imagePullPolicy: {{ $values.images.gateway.pullPolicy }}
    command: [python, -m, containers.fetch]
    args: [--models, /etc/diffusion/models.json, --cache, /models, --keep-days, {{ $pool.modelCache.keepDays | quote }}]
    {{- with $values.storage.region }}
    env:
      - {name: AWS_REGION, value: {{ . }}}
    {{- end }}
    {{- include "diffusion.storageEnvironment" $root | nindent 4 }}
    securityContext: {{- include "diffusion.containerSecurity" $root | nindent 6 }}
    resources:
      requests: {cpu: "1", memory: 512Mi, ephemeral-storage: 64Mi}
      limits: {cpu: "2", memory: 1Gi, ephemeral-storage: 256Mi}
    volumeMounts:
      - {name: config, mountPath: /etc/diffusion, readOnly: true}
      - {name: models, mountPath: /models}
      - {name: tmp, mountPath: /tmp}
containers:
  - name: {{ ternary "torchserve" "kserve-container" .fed }}
    {{- $image := ternary $values.images.worker $values.images.workerCpu (gt (int $pool.gpus) 0) }}
    image: {{ include "diffusion.image" (dict "root" $root "image" $image) }}
    imagePullPolicy: {{ $image.pullPolicy }}
    args: [--models, /etc/diffusion/models.json, --cache, /models/archives, --used, /models/used, --listen, {{ ternary "127.0.0.1" "0.0.0.0" .fed | quote }}]
    ports:
      {{- if not .fed }}
      - {name: http1, containerPort: 8080}
      {{- end }}
      - {name: metrics, containerPort: 8082}
    env:
      - {name: DIFFUSION_PROFILE_DIR, value: /models/profiles}
      {{- with $values.checkpointKeySecret }}
      {{- if .name }}
      - name: DIFFUSION_CHECKPOINT_KEY
        valueFrom: {secretKeyRef: {name: {{ .name }}, key: {{ .key }}}}
      {{- end }}
      {{- end }}
    # Until every registration was READY once, whatever loading takes; nothing else asks before.
    startupProbe:
      exec: {command: [python, {{ $probe }}, started, /etc/diffusion/models.json]}
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: {{ max 1 (div (int $pool.startupSeconds) 10) }}
    # /ping says Healthy while workers load or crash: models are asked for one by one.
    readinessProbe:
      exec: {command: [python, {{ $probe }}, ready, /etc/diffusion/models.json]}
      periodSeconds: 10
      timeoutSeconds: 10
      failureThreshold: 3
    # The frontend answers while workers load or draw; only one that hangs is restarted.
    livenessProbe:
      exec: {command: [python, {{ $probe }}, alive]}
      periodSeconds: 20
      timeoutSeconds: 10
      failureThreshold: 6
    lifecycle:
      {{- if .fed }}
      # TorchServe draws on until the worker beside it has drained.
      preStop: {exec: {command: [python, {{ $probe }}, drained, --within, {{ $pool.drainSeconds | quote }}]}}
      {{- else }}
      preStop: {exec: {command: [sleep, "10"]}}
      {{- end }}
    securityContext: {{- include "diffusion.containerSecurity" $root | nindent 6 }}
    resources:
      {{- $resources := deepCopy $pool.resources }}
      {{- if gt (int $pool.gpus) 0 }}
      {{- range list $resources.requests $resources.limits }}
      {{- $_ := set . $pool.gpuResource (int $pool.gpus) }}
      {{- end }}
      {{- end }}
      {{- toYaml $resources | nindent 6 }}
    volumeMounts:
      - {name: config, mountPath: /etc/diffusion, readOnly: true}
      - {name: models, mountPath: /models/archives, subPath: archives, readOnly: true}
      # Which archives are in use, so that no other pod removes them.
      - {name: models, mountPath: /models/used, subPath: used}
      # t(b) as measured, so that the next pod of this kind is READY sooner.
      - {name: models, mountPath: /models/profiles, subPath: profiles}
      - {name: run, mountPath: /run/torchserve}
      - {name: tmp, mountPath: /tmp}
      - {name: shared-memory, mountPath: /dev/shm}
  {{- if .fed }}
  - name: gateway-worker
    image: {{ include "diffusion.image" (dict "root" $root "image" $values.images.gateway) }}
    imagePullPolicy: {{ $values.images.gateway.pullPolicy }}
    args: [serve, --config, /etc/diffusion/gateway.yaml, --pid-file, /run/gateway/gateway.pid]
    ports:
      - {name: http, containerPort: 8000}
    env: {{- include "diffusion.gatewayEnvironment" $root | nindent 6 }}
    {{- include "diffusion.storageEnvironment" $root | nindent 4 }}
    startupProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 2
      failureThreshold: 60
    livenessProbe:
      httpGet: {path: /healthz, port: http}
      periodSeconds: 10
      timeoutSeconds: 5
      failureThreshold: 3
    # Store and storage answer, and a model is there to draw.
    readinessProbe:
      httpGet: {path: /readyz, port: http}
      periodSeconds: 10
      timeoutSeconds: 6
      failureThreshold: 3
    lifecycle:
      # Returns when the worker has handed everything on and is gone, this container with it.
      preStop:
        exec:
          command: [python, -m, diffusion_gateway, drain, --config, /etc/diffusion/gateway.yaml, --pid-file, /run/gateway/gateway.pid]
    securityContext: {{- include "diffusion.containerSecurity" $root | nindent 6 }}
    resources: {{- toYaml $pool.workerResources | nindent 6 }}
    volumeMounts:
      - {name: config, mountPath: /etc/diffusion, readOnly: true}
      - {name: run-gateway, mountPath: /run/gateway}
      - {name: tmp-gateway, mountPath: /tmp}
  {{- end }}
volumes:
  - name: config
    configMap: {name: {{ include "diffusion.poolname" (dict "root" $root "name" .name) }}}
  - name: models
    {{- with $pool.modelCache }}
    {{- if .existingClaim }}
    persistentVolumeClaim: {claimName: {{ .existingClaim }}}
    {{- else if .ephemeral }}
    emptyDir: {sizeLimit: {{ .size }}}
    {{- else }}
    persistentVolumeClaim: {claimName: {{ include "diffusion.poolname" (dict "root" $root "name" $.name) }}-models}
    {{- end }}
    {{- end }}
  - name: run
    emptyDir: {sizeLimit: 2Gi}
  - name: tmp
    emptyDir: {sizeLimit: 2Gi}
  - name: shared-memory
    emptyDir: {medium: Memory, sizeLimit: {{ $pool.sharedMemory }}}
  {{- if .fed }}
  - name: run-gateway
    emptyDir: {sizeLimit: 64Mi}
  - name: tmp-gateway
    emptyDir: {sizeLimit: 64Mi}
  {{- end }}
{{- end -}}
