# One task, since SQLite on a file system belongs to one: a new task starts after the old one has ended.
# Where a database is named there may be several.

resource "aws_ecs_cluster" "this" {
  name = var.name
  setting {
    name  = "containerInsights"
    value = "enabled"
  }
}

resource "aws_cloudwatch_log_group" "service" {
  name              = local.log_group
  retention_in_days = var.log_retention_days
  kms_key_id        = aws_kms_key.this.arn
}

resource "aws_ecs_task_definition" "this" {
  family                   = var.name
  requires_compatibilities = ["FARGATE"]
  network_mode             = "awsvpc"
  cpu                      = var.cpu
  memory                   = var.memory
  execution_role_arn       = aws_iam_role.execution.arn
  task_role_arn            = aws_iam_role.task.arn
  track_latest             = true

  runtime_platform {
    operating_system_family = "LINUX"
    cpu_architecture        = "X86_64"
  }

  container_definitions = jsonencode([{
    name                   = "touchstone"
    image                  = local.image
    essential              = true
    user                   = "${local.user}:${local.user}"
    readonlyRootFilesystem = true
    portMappings           = [{ containerPort = local.port, protocol = "tcp" }]
    environment = [
      { name = "ARTIFACTS_BUCKET", value = aws_s3_bucket.artefacts.id },
      { name = "GOLD_BUCKET", value = aws_s3_bucket.gold.id },
      { name = "AWS_REGION", value = var.region },
    ]
    secrets = [
      for name in local.stores : { name = name, valueFrom = "${var.stores_secret_arn}:${name}::" }
    ]
    linuxParameters = { initProcessEnabled = true, capabilities = { drop = ["ALL"] } }
    stopTimeout     = 15
    mountPoints = [
      { sourceVolume = "results", containerPath = "/app/results", readOnly = false },
      { sourceVolume = "tmp", containerPath = "/tmp", readOnly = false },
    ]
    # A container that is not alive is replaced; the load balancer asks whether it is ready.
    healthCheck = {
      command     = ["CMD", "python", "-c", "from urllib.request import urlopen; urlopen('http://127.0.0.1:${local.port}/health', timeout=4)"]
      interval    = 15
      timeout     = 5
      retries     = 3
      startPeriod = 120
    }
    logConfiguration = {
      logDriver = "awslogs"
      options = {
        awslogs-group         = aws_cloudwatch_log_group.service.name
        awslogs-region        = var.region
        awslogs-stream-prefix = "service"
      }
    }
  }])

  volume {
    name = "results"
    efs_volume_configuration {
      file_system_id     = aws_efs_file_system.results.id
      transit_encryption = "ENABLED"
      authorization_config {
        access_point_id = aws_efs_access_point.results.id
        iam             = "ENABLED"
      }
    }
  }
  volume {
    name = "tmp"
  }
}

resource "aws_ecs_service" "this" {
  name                               = var.name
  cluster                            = aws_ecs_cluster.this.id
  task_definition                    = aws_ecs_task_definition.this.arn
  desired_count                      = var.services
  launch_type                        = "FARGATE"
  platform_version                   = "LATEST"
  deployment_minimum_healthy_percent = var.services > 1 ? 50 : 0
  deployment_maximum_percent         = var.services > 1 ? 200 : 100
  health_check_grace_period_seconds  = 900 # the first start compiles every model
  propagate_tags                     = "SERVICE"

  deployment_circuit_breaker {
    enable   = true
    rollback = true
  }
  network_configuration {
    subnets          = var.subnet_ids
    security_groups  = [aws_security_group.service.id]
    assign_public_ip = false
  }
  load_balancer {
    target_group_arn = aws_lb_target_group.this.arn
    container_name   = "touchstone"
    container_port   = local.port
  }
  depends_on = [aws_lb_listener.https, aws_efs_mount_target.results]
}
